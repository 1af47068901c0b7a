"""Inputs of fal's sibling endpoints, translated to those of the multiconditioning endpoint."""

from typing import Any

import pytest

from keyreel.errors import Loc, RequestError
from keyreel.fal.endpoints import ENDPOINTS, MULTICONDITIONING, Endpoint
from keyreel.fal.schema import ImageCondition, Passes, Request, VideoCondition
from keyreel.fal.variants import LIGHTRICKS_NEGATIVE_PROMPT, PREVIEW_NEGATIVE_PROMPT

TEXT = ENDPOINTS["fal-ai/ltx-video-lora"]
IMAGE = ENDPOINTS["fal-ai/ltx-video-lora/image-to-video"]
DEV = ENDPOINTS["fal-ai/ltx-video-13b-dev/multiconditioning"]
DISTILLED = ENDPOINTS["fal-ai/ltx-video-13b-distilled/multiconditioning"]
TWO_PASS_ENDPOINTS = [DEV, DISTILLED]
V095 = ENDPOINTS["fal-ai/ltx-video-v095"]
PREVIEW = ENDPOINTS["fal-ai/ltx-video"]


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
    ("endpoint", "passes"),
    [(DEV, (30, 3, 30, 17)), (DISTILLED, (8, 1, 8, 5))],
    ids=lambda value: getattr(value, "alias", None),
)
def test_defaults_of_two_pass_endpoints(endpoint: Endpoint, passes: tuple[int, ...]) -> None:
    request = endpoint.read({"prompt": "x"})
    assert (request.number_of_frames, request.frame_rate, request.constant_rate_factor) == (121, 24, 29)
    assert request.negative_prompt == LIGHTRICKS_NEGATIVE_PROMPT
    assert (request.recipe, request.tone_map, request.number_of_steps) == (None, None, passes[0])
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
        (("recipe",), ("recipe",)),
        (("number_of_steps",), ("first_pass_num_inference_steps",)),
        (("loras", 0, "path"), ("loras", 0, "path")),
    ],
)
def test_errors_name_the_endpoints_own_fields(loc: Loc, translated: Loc) -> None:
    (problem,) = DEV.translate_error(RequestError.at(loc, "It is wrong.", "overlap", other="a")).problems
    assert (problem.loc, problem.type, problem.context) == (translated, "overlap", {"other": "a"})


def published(endpoint: str, **fields: Any) -> dict[str, Any]:
    """Returns what a request for the makers' recipe says about steps."""
    request = ENDPOINTS[endpoint].read({"prompt": "x", "recipe": "published"} | fields)
    return request.model_dump(include={"number_of_steps", "passes"}, exclude_unset=True)


def test_published_leaves_the_steps_to_the_makers_unless_the_request_names_its_own() -> None:
    assert published(DEV.id) == published(DISTILLED.id) == published(V095.id) == published(PREVIEW.id) == {}
    assert published(V095.id, num_inference_steps=40) == {"number_of_steps": 40}
    assert published(PREVIEW.id, num_inference_steps=7) == {"number_of_steps": 7}
    named = published(DEV.id, first_pass_num_inference_steps=10)
    assert (named["number_of_steps"], named["passes"]["first_steps"], named["passes"]["second_steps"]) == (10, 10, 30)


def test_text_endpoints_of_two_passes() -> None:
    text = ENDPOINTS["fal-ai/ltxv-13b-098-distilled"]
    request = text.read({"prompt": "x", "images": [{"image_url": "a"}], "loras": [{"path": "b"}]})
    assert (request.images, request.aspect_ratio, request.loras[0].path) == ((), "16:9", "b")
    assert problems(text, aspect_ratio="auto") == [(("aspect_ratio",), "literal_error")]


def test_single_pass_endpoints() -> None:
    request = V095.read({"prompt": "x", "num_inference_steps": 7, "aspect_ratio": "9:16", "num_frames": 9})
    assert (request.number_of_frames, request.frame_rate, request.number_of_steps) == (121, 24, 7)
    assert (request.aspect_ratio, request.resolution, request.expand_prompt) == ("9:16", "720p", True)
    assert problems(V095, aspect_ratio="1:1", num_inference_steps=1) == [
        (("num_inference_steps",), "greater_than_equal"),
        (("aspect_ratio",), "literal_error"),
    ]
    steps = RequestError.at(("number_of_steps",), "It is wrong.", "less_than")
    assert V095.translate_error(steps).problems[0].loc == ("num_inference_steps",)


def test_preview_endpoints() -> None:
    request = PREVIEW.read({"prompt": "x", "guidance_scale": 5.5})
    assert (request.guidance_scale, request.number_of_steps, request.negative_prompt) == (
        5.5,
        30,
        PREVIEW_NEGATIVE_PROMPT,
    )
    assert (request.resolution, request.aspect_ratio) == ("480p", "16:9")
    image = ENDPOINTS["fal-ai/ltx-video/image-to-video"].read({"prompt": "x", "image_url": "a"})
    assert (image.images, image.aspect_ratio) == ((ImageCondition(image_url="a"),), "auto")


@pytest.mark.parametrize(
    "endpoint", ["fal-ai/ltx-video/image-to-video", "fal-ai/ltx-video-13b-dev/image-to-video"], ids=lambda name: name
)
def test_errors_in_the_one_picture_name_its_field(endpoint: str) -> None:
    wrong = RequestError.at(("images", 0, "image_url"), "It is broken.", "image_load_error")
    assert ENDPOINTS[endpoint].translate_error(wrong).problems[0].loc == ("image_url",)
