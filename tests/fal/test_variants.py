"""Inputs of fal's sibling endpoints, translated to those of the multiconditioning endpoint."""

import re
from typing import Any

import pytest

from keyreel.errors import Loc, RequestError
from keyreel.fal.endpoints import ENDPOINTS, MULTICONDITIONING, Endpoint
from keyreel.fal.schema import ImageCondition, Passes, Request, VideoCondition
from keyreel.fal.variants import LIGHTRICKS_NEGATIVE_PROMPT
from tests.js import JS, install

TEXT = ENDPOINTS["fal-ai/ltx-video-lora"]
IMAGE = ENDPOINTS["fal-ai/ltx-video-lora/image-to-video"]
DEV = ENDPOINTS["fal-ai/ltx-video-13b-dev/multiconditioning"]
DISTILLED = ENDPOINTS["fal-ai/ltx-video-13b-distilled/multiconditioning"]
TWO_PASS_ENDPOINTS = [DEV, DISTILLED]
TYPES = JS / "node_modules" / "@fal-ai" / "client" / "src" / "types"
PUBLISHED_TYPES = {
    MULTICONDITIONING: "MulticonditioningVideoInput",
    TEXT: "LtxVideoLoraInput",
    IMAGE: "LtxVideoLoraImageToVideoInput",
    DISTILLED: "DistilledMultiConditioningVideoInput",
}


def problems(endpoint: Endpoint, **fields: Any) -> list[tuple[Loc, str]]:
    with pytest.raises(RequestError) as caught:
        endpoint.read({"prompt": "x"} | fields)
    return [(problem.loc, problem.type) for problem in caught.value.problems]


def test_multiconditioning_endpoint() -> None:
    fields = {"prompt": "x", "images": [{"image_url": "a", "start_frame_number": 16}]}
    assert MULTICONDITIONING.read(fields) == Request.model_validate(fields)


def test_text_endpoint() -> None:
    request = TEXT.read({"prompt": "x", "num_inference_steps": 7, "frames_per_second": 12, "loras": [{"path": "a"}]})
    assert (request.aspect_ratio, request.number_of_steps, request.frame_rate) == ("16:9", 7, 12)
    assert request.loras[0].path == "a"
    assert problems(TEXT, aspect_ratio="auto") == [(("aspect_ratio",), "literal_error")]


def test_image_endpoint() -> None:
    request = IMAGE.read({"prompt": "x", "image_url": "a", "recipe": "stg"})
    assert request == Request(prompt="x", recipe="stg", images=(ImageCondition(image_url="a"),))
    assert problems(IMAGE) == [(("image_url",), "missing")]
    wrong = RequestError.at(("images", 0, "image_url"), "It is broken.", "image_load_error")
    assert IMAGE.translate_error(wrong).problems[0].loc == ("image_url",)


@pytest.mark.parametrize(
    ("endpoint", "recipe", "passes"),
    [(DEV, "multiscale", (30, 3, 30, 17)), (DISTILLED, "distilled-multiscale", (8, 1, 8, 5))],
    ids=lambda value: getattr(value, "alias", None),
)
def test_defaults_of_two_pass_endpoints(endpoint: Endpoint, recipe: str, passes: tuple[int, ...]) -> None:
    request = endpoint.read({"prompt": "x"})
    assert (request.number_of_frames, request.frame_rate, request.constant_rate_factor) == (121, 24, 29)
    assert request.negative_prompt == LIGHTRICKS_NEGATIVE_PROMPT
    assert (request.recipe, request.tone_map) == (recipe, None)
    assert request.passes
    assert tuple(request.passes.model_dump().values()) == passes


@pytest.mark.parametrize("endpoint", TWO_PASS_ENDPOINTS, ids=lambda endpoint: endpoint.alias)
def test_fields_of_two_pass_endpoints(endpoint: Endpoint) -> None:
    request = endpoint.read(
        {
            "prompt": "x",
            "num_frames": 33,
            "first_pass_num_inference_steps": 10,
            "first_pass_skip_final_steps": 2,
            "second_pass_num_inference_steps": 12,
            "second_pass_skip_initial_steps": 6,
            "tone_map_compression_ratio": 0.5,
            "constant_rate_factor": 0,
            "enable_detail_pass": True,
            "temporal_adain_factor": 0.1,
        }
    )
    assert request.number_of_frames == 33
    assert request.passes == Passes(first_steps=10, first_skip_final=2, second_steps=12, second_skip_initial=6)
    assert (request.tone_map, request.constant_rate_factor) == (0.5, 0)


def test_skipped_final_steps_are_a_share_of_the_first_pass() -> None:
    passes = [DEV.read({"prompt": "x", "first_pass_num_inference_steps": steps}).passes for steps in (2, 10, 50)]
    assert [each.first_skip_final for each in passes if each] == [0, 1, 5]


def test_conditions_of_two_pass_endpoints() -> None:
    video = {"video_url": "b", "start_frame_num": 16, "target_fps": 12, "max_num_frames": 33, "reverse_video": True}
    request = DEV.read(
        {
            "prompt": "x",
            "images": [{"image_url": "a", "start_frame_num": 120, "strength": 0.5}],
            "videos": [video, video | {"resample_fps": True, "limit_num_frames": True, "reverse_video": False}],
        }
    )
    assert request.images == (ImageCondition(image_url="a", start_frame_number=120, strength=0.5),)
    assert request.videos == (
        VideoCondition(video_url="b", start_frame_number=16, reverse=True),
        VideoCondition(video_url="b", start_frame_number=16, target_fps=12, max_num_frames=33),
    )


@pytest.mark.parametrize("kind", ["depth", "pose", "canny"])
def test_conditioning_types_that_need_in_context_loras_are_refused(kind: str) -> None:
    videos = [{"video_url": "a", "conditioning_type": kind}]
    assert problems(DISTILLED, videos=videos) == [(("videos", 0, "conditioning_type"), "feature_not_supported")]


@pytest.mark.parametrize(
    ("endpoint", "field", "value", "type_"),
    [
        (DEV, "num_frames", 162, "less_than_equal"),
        (DEV, "first_pass_num_inference_steps", 51, "less_than_equal"),
        (DEV, "second_pass_num_inference_steps", 17, "less_than"),
        (DEV, "first_pass_skip_final_steps", 30, "less_than"),
        (DISTILLED, "first_pass_num_inference_steps", 13, "less_than_equal"),
        (DISTILLED, "second_pass_skip_initial_steps", 0, "greater_than_equal"),
        (DISTILLED, "second_pass_skip_initial_steps", 8, "less_than"),
        (DISTILLED, "constant_rate_factor", 52, "less_than_equal"),
    ],
)
def test_values_out_of_bounds_are_refused(endpoint: Endpoint, field: str, value: int, type_: str) -> None:
    reported = "second_pass_skip_initial_steps" if value == 17 else field
    assert problems(endpoint, **{field: value}) == [((reported,), type_)]


@pytest.mark.parametrize(
    ("loc", "translated"),
    [
        (("number_of_frames",), ("num_frames",)),
        (("images", 1, "start_frame_number"), ("images", 1, "start_frame_num")),
        (("videos", 0, "reverse"), ("videos", 0, "reverse_video")),
        (("videos", 0, "video_url"), ("videos", 0, "video_url")),
        (("passes", "second_skip_initial"), ("second_pass_skip_initial_steps",)),
        (("recipe",), ()),
        (("loras", 0, "path"), ("loras", 0, "path")),
    ],
)
def test_errors_name_the_endpoints_own_fields(loc: Loc, translated: Loc) -> None:
    (problem,) = DEV.translate_error(RequestError.at(loc, "It is wrong.", "overlap", other="a")).problems
    assert (problem.loc, problem.type, problem.context) == (translated, "overlap", {"other": "a"})


@pytest.mark.parametrize("endpoint", PUBLISHED_TYPES, ids=lambda endpoint: endpoint.id)
def test_all_fields_that_fal_publishes_are_known(endpoint: Endpoint) -> None:
    """Reads the types in fal's client. An alias counts as its field."""
    install()
    source = (TYPES / "endpoints.d.ts").read_text()
    body = source.split(f"export type {PUBLISHED_TYPES[endpoint]} = {{")[1].split("\n};")[0]
    published = set(re.findall(r"^    (\w+)\??:", body, re.MULTILINE))
    fields = endpoint.input.model_fields
    aliases = {choice for field in fields.values() for choice in getattr(field.validation_alias, "choices", ())}
    assert published <= fields.keys() | aliases
