import pytest
import torch
from diffusers.pipelines.ltx.pipeline_ltx_condition import linear_quadratic_schedule

from keyreel.engine.schedule import guidance_at, guidance_per_step, linear_quadratic, noise_levels, trained_levels
from keyreel.video.recipes import Guidance, Pass, RecipeName, TwoPasses, recipe_of

NONE = ((0.0, Guidance()),)


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 30, 50])
def test_noise_levels_equal_diffusers_schedule(steps: int) -> None:
    expected = [*linear_quadratic_schedule(steps).tolist(), 0.0]
    torch.testing.assert_close(torch.tensor(linear_quadratic(steps)), torch.tensor(expected), rtol=0, atol=1e-6)


def test_8_steps_have_the_published_noise_levels() -> None:
    published = (1, 0.9937, 0.9875, 0.9812, 0.975, 0.9094, 0.725, 0.4219, 0)
    assert linear_quadratic(8) == pytest.approx(published, abs=1e-4)


def test_passes_with_skipped_steps_end_at_zero() -> None:
    levels = linear_quadratic(30)
    assert noise_levels(Pass(30, NONE, skip_final=3)) == (*levels[:27], 0.0)
    assert noise_levels(Pass(30, NONE, 17)) == levels[17:]


def test_guidance_depends_on_the_noise_level() -> None:
    """The expected values were read by hand from ltxv-13b-0.9.7-dev.yaml at the levels of 30 steps."""
    first, second = recipe_of("multiscale", 30, 3.0, distilled=False).passes
    plain = Guidance()
    expected = [
        *[plain] * 3,
        *[Guidance(6, 4, 0.5, (22, 35, 39))] * 2,
        *[Guidance(8, 4, 0.5, (28,))] * 5,
        *[Guidance(6, 4, 0, (28,))] * 4,
        *[Guidance(1, 2, 0, (28,))] * 5,
        *[Guidance(1, 1, 0, (28,))] * 8,
    ]
    assert list(guidance_per_step(first, 48, 48)) == expected
    assert noise_levels(first)[-2:] == pytest.approx((0.4458, 0), abs=1e-4)
    assert list(guidance_per_step(second, 48, 48)) == [Guidance(1, 1, 0, (27,))] * 13
    assert noise_levels(second)[0] == pytest.approx(0.9548, abs=1e-4)


def test_guidance_of_other_numbers_of_steps_follows_the_noise_level() -> None:
    first, _ = recipe_of("multiscale", 10, 3.0, distilled=False).passes
    scales = [(sigma, guidance_at(first, sigma).scale) for sigma in noise_levels(first)[:-1]]
    assert scales[0] == (1.0, 1.0)
    assert [scale for sigma, scale in scales if 0.985 <= sigma < 0.9933] == [8.0, 8.0]


@pytest.mark.parametrize("steps", range(1, 9))
@pytest.mark.parametrize("name", ["distilled", "distilled-multiscale"])
def test_a_distilled_model_sees_only_noise_levels_of_its_training(name: RecipeName, steps: int) -> None:
    trained = linear_quadratic(8)
    for run in recipe_of(name, steps, 3.0, distilled=True).passes:
        levels = noise_levels(run)
        assert set(levels) <= set(trained)
        assert list(levels) == sorted(set(levels), reverse=True)
    assert trained_levels(8) == trained[:-1]
    assert trained_levels(4) == pytest.approx((1, 0.9875, 0.975, 0.725))


def test_passes_of_a_distilled_model_have_no_more_steps_than_its_training() -> None:
    first, second = recipe_of("multiscale", 8, 3.0, distilled=True, passes=TwoPasses(12, 2, 12, 6)).passes
    assert noise_levels(first) == (*linear_quadratic(8)[:7], 0.0)
    assert noise_levels(second) == linear_quadratic(8)[4:]


def test_distilled_recipes_have_the_noise_levels_of_the_training() -> None:
    (single,) = recipe_of("distilled", 30, 3.0, distilled=True).passes
    assert noise_levels(single) == linear_quadratic(8)
    first, second = recipe_of("multiscale", 30, 3.0, distilled=True).passes
    assert noise_levels(first) == pytest.approx((1, 0.9937, 0.9875, 0.9812, 0.975, 0.9094, 0.725, 0), abs=1e-4)
    assert noise_levels(second) == pytest.approx((0.9094, 0.725, 0.4219, 0), abs=1e-4)


@pytest.mark.parametrize(("layers", "blocks"), [(48, (22, 35, 39)), (28, (12, 20, 22)), (5, (2, 3, 4))])
def test_perturbed_blocks_keep_their_relative_depth(layers: int, blocks: tuple[int, ...]) -> None:
    first, _ = recipe_of("multiscale", 30, 3.0, distilled=False).passes
    assert guidance_per_step(first, 48, layers)[3].blocks == blocks


@pytest.mark.parametrize(("layers", "block"), [(48, 19), (28, 19), (5, 3), (2, 1)])
def test_the_stg_recipe_perturbs_block_19_in_both_model_sizes(layers: int, block: int) -> None:
    recipe = recipe_of("stg", 30, 3.0, distilled=False)
    assert set(guidance_per_step(recipe.passes[0], recipe.depth, layers)) == {Guidance(3, 1, 0.7, (block,))}
