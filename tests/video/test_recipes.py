from dataclasses import replace

import pytest

from keyreel.errors import ModelError, RequestError
from keyreel.video.recipes import (
    DEFAULT_PASSES,
    DISTILLED_PASSES,
    TWO_PASSES,
    Capabilities,
    Published,
    RecipeName,
    TwoPasses,
    choose_recipe,
    default_recipe,
    recipe_of,
)

PLAIN = Capabilities()
FULL = Capabilities(upsampler="a" * 64, distilled_lora="b" * 64)
DISTILLED = Capabilities(distilled=True)
ALL_RECIPES: tuple[RecipeName, ...] = ("single", "stg", "multiscale", "distilled", "distilled-multiscale")


def test_recipe_of_the_request_precedes_the_setting() -> None:
    assert choose_recipe("stg", FULL, "multiscale") == "stg"
    assert choose_recipe(None, FULL, "multiscale") == "multiscale"


def test_default_recipe_depends_on_the_model() -> None:
    assert choose_recipe(None, PLAIN, None) == "single"
    assert choose_recipe(None, DISTILLED, None) == "distilled"


@pytest.mark.parametrize(
    ("capabilities", "possible"),
    [
        (PLAIN, {"single", "stg"}),
        (FULL, set(ALL_RECIPES)),
        (Capabilities(upsampler="a"), {"single", "stg", "multiscale"}),
        (Capabilities(distilled_lora="a"), {"single", "stg", "distilled"}),
        (DISTILLED, {"distilled"}),
        (Capabilities(distilled=True, upsampler="a"), {"distilled", "multiscale", "distilled-multiscale"}),
    ],
    ids=["plain", "with all", "with upsampler", "with LoRA", "distilled", "distilled with upsampler"],
)
def test_possible_recipes_depend_on_the_models_capabilities(capabilities: Capabilities, possible: set[str]) -> None:
    for name in ALL_RECIPES:
        if name in possible:
            assert choose_recipe(name, capabilities, None) == default_recipe(capabilities, name) == name
            continue
        with pytest.raises(RequestError) as refused:
            choose_recipe(name, capabilities, None)
        (problem,) = refused.value.problems
        assert (problem.loc, problem.type) == (("recipe",), "feature_not_supported")
        with pytest.raises(ModelError, match=f"Recipe {name} "):
            default_recipe(capabilities, name)


@pytest.mark.parametrize(
    ("requested", "capabilities", "advice"),
    [
        ("multiscale", PLAIN, "KEYREEL_UPSAMPLER"),
        ("distilled", PLAIN, "KEYREEL_DISTILLED_LORA"),
        ("stg", DISTILLED, "use distilled or multiscale"),
    ],
)
def test_refusal_says_what_to_do(requested: RecipeName, capabilities: Capabilities, advice: str) -> None:
    with pytest.raises(RequestError, match=advice):
        choose_recipe(requested, capabilities, None)


def test_used_by_returns_the_hashes_of_the_weights_that_a_recipe_uses() -> None:
    assert FULL.used_by("single") == FULL.used_by("stg") == {}
    assert FULL.used_by("multiscale") == {"upsampler": "a" * 64}
    assert FULL.used_by("distilled") == {"distilled_lora": "b" * 64}
    assert FULL.used_by("distilled-multiscale") == FULL.used_by("multiscale") | FULL.used_by("distilled")
    assert DISTILLED.used_by("distilled") == {}


def test_published_is_the_recipe_of_the_models_makers() -> None:
    model = Capabilities(upsampler="abc", published=Published("multiscale", 30))
    assert choose_recipe("published", model, None) == choose_recipe(None, model, "published") == "multiscale"
    assert choose_recipe(None, model, None) == "single"
    with pytest.raises(RequestError, match="needs a latent upsampler"):
        choose_recipe("published", replace(model, upsampler=None), None)


@pytest.mark.parametrize("distilled", [False, True])
@pytest.mark.parametrize("steps", range(1, 51))
def test_every_pass_has_at_least_one_step(steps: int, distilled: bool) -> None:
    for name in ALL_RECIPES:
        recipe = recipe_of(name, steps, 3.0, distilled=distilled)
        assert len(recipe.passes) == (2 if name in TWO_PASSES else 1)
        for run in recipe.passes:
            assert 0 < run.steps - run.skip_initial - run.skip_final <= steps


@pytest.mark.parametrize(
    ("name", "distilled", "steps", "defaults"),
    [
        ("multiscale", False, 30, DEFAULT_PASSES),
        ("multiscale", True, 30, DISTILLED_PASSES),
        ("distilled-multiscale", False, 8, DISTILLED_PASSES),
    ],
)
def test_steps_of_two_passes_are_those_of_lightricks_by_default(
    name: RecipeName, distilled: bool, steps: int, defaults: TwoPasses
) -> None:
    assert two_passes(name, distilled, steps, None) == defaults
    requested = TwoPasses(first=7, skip_final=2, second=8, skip_initial=0)
    assert two_passes(name, distilled, steps, requested) == requested


def two_passes(name: RecipeName, distilled: bool, steps: int, passes: TwoPasses | None) -> TwoPasses:
    first, second = recipe_of(name, steps, 3.0, distilled=distilled, passes=passes).passes
    assert first.skip_initial == second.skip_final == 0
    return TwoPasses(first.steps, first.skip_final, second.steps, second.skip_initial)
