import pytest

from keyreel.errors import ModelError, RequestError
from keyreel.recipes import (
    DISTILLED_PASSES,
    TWO_PASSES,
    USUAL_PASSES,
    Abilities,
    RecipeName,
    TwoPasses,
    choose_recipe,
    default_recipe,
    recipe_of,
)
from keyreel.schema import parse_request

PLAIN = Abilities()
FULL = Abilities(upsampler="a" * 64, distilled_lora="b" * 64)
DISTILLED = Abilities(distilled=True)
EVERY: tuple[RecipeName, ...] = ("single", "stg", "multiscale", "distilled", "distilled-multiscale")


def test_what_a_request_asks_for_comes_before_the_setting() -> None:
    assert choose_recipe("stg", FULL, "multiscale") == "stg"
    assert choose_recipe(None, FULL, "multiscale") == "multiscale"


def test_the_model_has_the_last_word() -> None:
    assert choose_recipe(None, PLAIN, None) == "single"
    assert choose_recipe(None, DISTILLED, None) == "distilled"


@pytest.mark.parametrize(
    ("abilities", "possible"),
    [
        (PLAIN, {"single", "stg"}),
        (FULL, set(EVERY)),
        (Abilities(upsampler="a"), {"single", "stg", "multiscale"}),
        (Abilities(distilled_lora="a"), {"single", "stg", "distilled"}),
        (DISTILLED, {"distilled"}),
        (Abilities(distilled=True, upsampler="a"), {"distilled", "multiscale", "distilled-multiscale"}),
    ],
    ids=["plain", "with all", "with upsampler", "with LoRA", "distilled", "distilled with upsampler"],
)
def test_what_a_model_can_do(abilities: Abilities, possible: set[str]) -> None:
    for name in EVERY:
        if name in possible:
            assert choose_recipe(name, abilities, None) == default_recipe(abilities, name) == name
            continue
        with pytest.raises(RequestError) as refused:
            choose_recipe(name, abilities, None)
        (problem,) = refused.value.problems
        assert (problem.loc, problem.type) == (("recipe",), "feature_not_supported")
        with pytest.raises(ModelError, match=f"Recipe {name} "):
            default_recipe(abilities, name)


@pytest.mark.parametrize(
    ("asked", "abilities", "advice"),
    [
        ("multiscale", PLAIN, "KEYREEL_UPSAMPLER"),
        ("distilled", PLAIN, "KEYREEL_DISTILLED_LORA"),
        ("stg", DISTILLED, "use distilled or multiscale"),
    ],
)
def test_a_refusal_says_what_to_do(asked: RecipeName, abilities: Abilities, advice: str) -> None:
    with pytest.raises(RequestError, match=advice):
        choose_recipe(asked, abilities, None)


def test_hashes_of_what_took_part() -> None:
    assert FULL.used_by("single") == FULL.used_by("stg") == {}
    assert FULL.used_by("multiscale") == {"upsampler": "a" * 64}
    assert FULL.used_by("distilled") == {"distilled_lora": "b" * 64}
    assert FULL.used_by("distilled-multiscale") == FULL.used_by("multiscale") | FULL.used_by("distilled")
    assert DISTILLED.used_by("distilled") == {}


@pytest.mark.parametrize("distilled", [False, True])
@pytest.mark.parametrize("steps", range(1, 51))
def test_every_pass_has_a_step(steps: int, distilled: bool) -> None:
    for name in EVERY:
        recipe = recipe_of(name, steps, 3.0, distilled=distilled)
        assert len(recipe.passes) == (2 if name in TWO_PASSES else 1)
        for run in recipe.passes:
            assert 0 < run.steps - run.skip_initial - run.skip_final <= steps


@pytest.mark.parametrize(
    ("name", "distilled", "steps", "usual"),
    [
        ("multiscale", False, 30, USUAL_PASSES),
        ("multiscale", True, 30, DISTILLED_PASSES),
        ("distilled-multiscale", False, 8, DISTILLED_PASSES),
    ],
)
def test_the_steps_of_two_passes(name: RecipeName, distilled: bool, steps: int, usual: TwoPasses) -> None:
    """As Lightricks has them, unless the request says otherwise."""
    assert steps_of(name, distilled, steps, None) == usual
    asked = TwoPasses(first=10, skip_final=2, second=12, skip_initial=0)
    assert steps_of(name, distilled, steps, asked) == asked


def steps_of(name: RecipeName, distilled: bool, steps: int, passes: TwoPasses | None) -> TwoPasses:
    first, second = recipe_of(name, steps, 3.0, distilled=distilled, passes=passes).passes
    assert first.skip_initial == second.skip_final == 0
    return TwoPasses(first.steps, first.skip_final, second.steps, second.skip_initial)


def test_the_request_names_a_recipe() -> None:
    assert parse_request({"prompt": "a"}).recipe is None
    assert parse_request({"prompt": "a", "recipe": "stg"}).recipe == "stg"
    with pytest.raises(RequestError) as refused:
        parse_request({"prompt": "a", "recipe": "slow"})
    assert refused.value.problems[0].loc == ("recipe",)
