"""What an endpoint promises on fal, on the model that is loaded here."""

from typing import Any

import pytest

from keyreel.errors import RequestError
from keyreel.fal.schema import Request
from keyreel.store.records import Lease
from keyreel.video.canvas import Grid
from keyreel.video.recipes import Capabilities, Published, RecipeChoice, choose_recipe
from keyreel.worker.claimed import UNEXPANDED, read_claimed
from keyreel.worker.messages import Ready

DEMO = ("demo", Capabilities())
DEV = ("ltxv-13b-0.9.7-dev", Capabilities(upsampler="a", published=Published("multiscale", 30)))
DISTILLED = (
    "ltxv-13b-0.9.8-distilled.safetensors",
    Capabilities(distilled=True, upsampler="a", published=Published("multiscale", 8)),
)
SMALL = ("ltxv-2b-0.9.6-dev+int8", Capabilities(published=Published("stg", 40)))


def lease(endpoint: str, **fields: Any) -> Lease:
    return Lease("a", 1, f"fal-ai/{endpoint}", "key", {"prompt": "x"} | fields, 3, None, 0.0)


def claimed(
    endpoint: str,
    model: tuple[str, Capabilities],
    setting: RecipeChoice | None = None,
    *,
    can_expand: bool = True,
    **fields: Any,
) -> tuple[Request, tuple[str, ...]]:
    name, capabilities = model
    ready = Ready(name, "0" * 64, "cpu", Grid(32, 8), {}, capabilities)
    return read_claimed(lease(endpoint, **fields), ready, setting, can_expand=can_expand)


@pytest.mark.parametrize(
    ("endpoint", "model", "recipe", "steps"),
    [
        ("ltx-video-lora", DEV, None, 30),
        ("ltx-video-13b-dev", DEV, "multiscale", 30),
        ("ltx-video-13b-dev", DISTILLED, "multiscale", 30),
        ("ltxv-13b-098-distilled", DISTILLED, "distilled-multiscale", 8),
        ("ltx-video-v097", SMALL, "stg", 40),
        ("ltx-video-v095", DEMO, "stg", 40),
        ("ltx-video", DEMO, "single", 30),
    ],
)
def test_an_endpoint_has_its_recipe_where_the_model_can_run_it(
    endpoint: str, model: tuple[str, Capabilities], recipe: str | None, steps: int
) -> None:
    request, notices = claimed(endpoint, model)
    assert (request.recipe, request.number_of_steps, request.seed, notices) == (recipe, steps, 3, ())


@pytest.mark.parametrize(
    ("endpoint", "model", "recipe", "steps"),
    [
        ("ltx-video-13b-dev", DEMO, "single", 30),
        ("ltx-video-13b-distilled", DEMO, "single", 30),
        ("ltx-video-13b-distilled", DEV, "single", 30),
        ("ltx-video-v095", DISTILLED, "distilled", 8),
        ("ltx-video", DISTILLED, "distilled", 8),
        ("ltx-video-13b-dev/extend", SMALL, "single", 40),
    ],
)
def test_another_model_stands_in_with_its_own_recipe_and_steps(
    endpoint: str, model: tuple[str, Capabilities], recipe: str, steps: int
) -> None:
    fields: dict[str, Any] = {"video": {"video_url": "a"}} if endpoint.endswith("extend") else {}
    request, (notice,) = claimed(endpoint, model, **fields)
    assert (request.recipe, request.number_of_steps, request.passes) == (recipe, steps, None)
    assert notice.endswith(f"The recipe here is {recipe}.")


def test_the_operators_recipe_counts_for_a_model_that_stands_in() -> None:
    request, (notice,) = claimed("ltx-video-13b-distilled", DEV, "stg", first_pass_num_inference_steps=10)
    assert (request.recipe, request.number_of_steps) == ("stg", 10)
    assert notice == (
        "Recipe distilled-multiscale needs a distilled model, or a LoRA that distils this one: load another model or "
        "set KEYREEL_DISTILLED_LORA. The recipe here is stg."
    )


def test_fields_that_the_endpoint_does_not_have_are_named() -> None:
    other = [{"image_url": "a", "start_frame_number": 8}]
    request, notices = claimed("ltx-video-13b-dev/multiconditioning", DEV, number_of_frames=17, images=other)
    assert (request.number_of_frames, request.images[0].start_frame_number) == (121, 0)
    assert notices == ("Ignored, because there is no such field: images.0.start_frame_number, number_of_frames.",)


def test_the_requests_recipe_comes_first() -> None:
    request, notices = claimed("ltx-video-13b-dev", DEMO, recipe="stg")
    assert (request.recipe, notices) == ("stg", ())


def test_the_endpoints_own_model_must_be_able_to_run_its_recipe() -> None:
    incomplete = Capabilities()
    request, notices = claimed("ltx-video-13b-dev", (DEV[0], incomplete))
    assert notices == ()
    with pytest.raises(RequestError) as caught:
        choose_recipe(request.recipe, incomplete, None)
    assert caught.value.problems[0].loc == ("recipe",)


def test_an_expansion_that_nobody_asked_for_is_left_out_without_an_expander() -> None:
    request, notices = claimed("ltx-video-v095", DEMO, can_expand=False)
    assert (request.expand_prompt, notices) == (False, (UNEXPANDED,))
    assert claimed("ltx-video-v095", DEMO)[0].expand_prompt
    wanted, notices = claimed("ltx-video-v095", DEMO, can_expand=False, expand_prompt=True)
    assert (wanted.expand_prompt, notices) == (True, ())
