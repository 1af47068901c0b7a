from typing import Any

import pytest

from keyreel.errors import RequestError
from keyreel.fal.endpoints import ENDPOINTS, Endpoint
from keyreel.fal.schema import NEGATIVE_PROMPT, Request, ignored_fields, parse_request, with_published_steps
from keyreel.video.recipes import Published, RecipeChoice


def problems(**fields: Any) -> list[tuple[tuple[str | int, ...], str]]:
    with pytest.raises(RequestError) as caught:
        parse_request(fields)
    return [(problem.loc, problem.type) for problem in caught.value.problems]


def test_defaults() -> None:
    assert parse_request({"prompt": "x"}).model_dump() == {
        "prompt": "x",
        "negative_prompt": NEGATIVE_PROMPT,
        "loras": (),
        "resolution": "720p",
        "aspect_ratio": "auto",
        "number_of_frames": 89,
        "number_of_steps": 30,
        "frame_rate": 25,
        "seed": None,
        "expand_prompt": False,
        "reverse_video": False,
        "enable_safety_checker": True,
        "recipe": None,
        "passes": None,
        "guidance_scale": None,
        "tone_map": None,
        "constant_rate_factor": 0,
        "images": (),
        "videos": (),
    }


def test_defaults_of_items() -> None:
    request = parse_request(
        {"prompt": "x", "images": [{"image_url": "a"}], "videos": [{"video_url": "b"}], "loras": [{"path": "c"}]}
    )
    assert (request.images[0].start_frame_number, request.images[0].strength) == (0, 1.0)
    assert (request.videos[0].start_frame_number, request.videos[0].strength) == (0, 1.0)
    assert (request.loras[0].weight_name, request.loras[0].scale) == (None, 1.0)


def test_newer_field_names_are_accepted() -> None:
    request = parse_request(
        {"prompt": "x", "num_inference_steps": 7, "frames_per_second": 12, "enable_prompt_expansion": True}
    )
    assert (request.number_of_steps, request.frame_rate, request.expand_prompt) == (7, 12, True)


@pytest.mark.parametrize("endpoint", ["fal-ai/ltx-video-lora", "fal-ai/ltx-video-lora/multiconditioning"])
def test_published_has_the_steps_of_the_makers_unless_the_request_names_its_own(endpoint: str) -> None:
    def steps(setting: RecipeChoice | None = None, **fields: Any) -> int:
        request = ENDPOINTS[endpoint].read({"prompt": "x"} | fields)
        return with_published_steps(request, setting, Published("stg", 40)).number_of_steps

    assert steps(recipe="published") == steps("published") == 40
    assert steps(recipe="published", number_of_steps=30) == steps("published", num_inference_steps=30) == 30
    assert steps() == steps("published", recipe="stg") == 30


def test_null_stands_for_an_absent_field() -> None:
    image = {"image_url": "a", "strength": None, "start_frame_number": None}
    sent = {"prompt": "x", "negative_prompt": None, "images": [image], "loras": None, "number_of_steps": None}
    expected = {"prompt": "x", "images": [{"image_url": "a"}], "num_inference_steps": 7}
    assert parse_request({**sent, "num_inference_steps": 7}) == parse_request(expected)
    assert problems(prompt=None) == [(("prompt",), "string_type")]


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=ENDPOINTS)
def test_every_optional_field_may_be_null(endpoint: Endpoint) -> None:
    fields = endpoint.input.model_fields
    samples = {"video": {"video_url": "https://x/y"}}
    sent = {name: samples.get(name, "https://x/y") if field.is_required() else None for name, field in fields.items()}
    required = {name: value for name, value in sent.items() if value}
    assert endpoint.read(sent) == endpoint.read(required)


@pytest.mark.parametrize("name", ["images", "videos", "loras"])
def test_a_list_is_called_a_list(name: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_request({"prompt": "x", name: "https://x/y"})
    (problem,) = caught.value.problems
    assert (problem.loc, problem.type, problem.message) == ((name,), "list_type", "Input should be a valid list")


def test_unknown_fields_are_ignored() -> None:
    assert parse_request({"prompt": "x", "transformer": "y"}) == Request(prompt="x")


def test_ignored_fields_are_named_at_their_places() -> None:
    data = {"prompt": "x", "num_inference_steps": 3, "fps": 9, "images": [{"image_url": "a", "start_frame_num": 8}]}
    assert ignored_fields(Request, data) == ("Ignored, because there is no such field: fps, images.0.start_frame_num.",)
    assert ignored_fields(Request, {"prompt": "x", "passes": None}) == ()


def test_any_number_of_ignored_fields_makes_a_short_message() -> None:
    (message,) = ignored_fields(Request, {"prompt": "x"} | {f"field_{number}": 1 for number in range(10_000)})
    assert message.startswith("Ignored, because there is no such field: field_0, field_1, ")
    assert message.endswith(" ....")
    assert len(message) < 400


@pytest.mark.parametrize(
    ("field", "value", "type_"),
    [
        ("number_of_frames", 8, "greater_than_equal"),
        ("number_of_frames", 162, "less_than_equal"),
        ("number_of_steps", 0, "greater_than_equal"),
        ("number_of_steps", 51, "less_than_equal"),
        ("frame_rate", 61, "less_than_equal"),
        ("resolution", "1080p", "literal_error"),
        ("aspect_ratio", "4:3", "literal_error"),
        ("seed", "abc", "int_parsing"),
        ("seed", 2**63, "less_than"),
    ],
)
def test_values_out_of_bounds_are_refused(field: str, value: Any, type_: str) -> None:
    assert problems(prompt="x", **{field: value}) == [((field,), type_)]


def test_prompt_is_required() -> None:
    assert problems() == [(("prompt",), "missing")]


def test_problems_name_nested_fields() -> None:
    assert problems(prompt="x", images=[{"image_url": "a", "strength": 1.5}, {"start_frame_number": -1}]) == [
        (("images", 0, "strength"), "less_than_equal"),
        (("images", 1, "image_url"), "missing"),
        (("images", 1, "start_frame_number"), "greater_than_equal"),
    ]


def test_pass_must_keep_a_step() -> None:
    passes = {"first_steps": 4, "first_skip_final": 4, "second_steps": 4, "second_skip_initial": 3}
    assert problems(prompt="x", passes=passes) == [(("passes", "first_skip_final"), "less_than")]


@pytest.mark.parametrize("data", [None, [], "text", 3])
def test_anything_but_an_object_is_refused(data: Any) -> None:
    with pytest.raises(RequestError):
        parse_request(data)


def test_recipe_is_optional_and_validated() -> None:
    assert parse_request({"prompt": "a"}).recipe is None
    assert parse_request({"prompt": "a", "recipe": "stg"}).recipe == "stg"
    with pytest.raises(RequestError) as refused:
        parse_request({"prompt": "a", "recipe": "slow"})
    assert refused.value.problems[0].loc == ("recipe",)
