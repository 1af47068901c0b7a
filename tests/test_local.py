import asyncio
import base64
import json
from contextlib import aclosing
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

import keyreel
from keyreel.engine.models import Model
from keyreel.errors import Loc, ModelError, RequestError
from keyreel.local import Done
from keyreel.media.mp4 import read_metadata
from keyreel.media.samples import sample_frames
from keyreel.video.events import Frames, Notice, Stage, Step
from tests.safety.test_moderation import ASTRONAUT
from tests.small_models import FORBIDDEN, language_model, picture_classifier, text_classifier

SMALL: dict[str, Any] = {
    "prompt": "a red circle",
    "resolution": "480p",
    "aspect_ratio": "1:1",
    "number_of_frames": 9,
    "number_of_steps": 1,
    "seed": 3,
}


@pytest.fixture(autouse=True)
def _separate_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYREEL_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(np.full((300, 400, 3), (200, 30, 30), np.uint8)).save(path)
    return path


@pytest.mark.slow
def test_request_becomes_a_file(model: Model, tmp_path: Path) -> None:
    out = tmp_path / "video.mp4"
    output = keyreel.generate(SMALL, model=model, out=out)
    assert output.model_dump() == {
        "prompt": "a red circle",
        "seed": 3,
        "video": {
            "url": out.as_uri(),
            "content_type": "video/mp4",
            "file_name": "video.mp4",
            "file_size": out.stat().st_size,
        },
    }
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, float(stream.average_rate or 0)) == (480, 480, 25.0)
        assert sum(1 for _ in container.decode(stream)) == 9


@pytest.mark.slow
def test_same_request_gives_the_same_bytes(model: Model, tmp_path: Path, picture: Path) -> None:
    request = SMALL | {"images": [{"image_url": "picture.png"}, {"image_url": str(picture), "start_frame_number": 8}]}
    files = [tmp_path / "one.mp4", tmp_path / "two.mp4"]
    for file in files:
        keyreel.generate(request, model=model, out=file, base=tmp_path)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_path_object_and_a_wrong_name_reach_the_caller(tmp_path: Path, picture: Path) -> None:
    images = ({"image_url": picture, "start_frame_number": 9},)
    events = keyreel.stream(SMALL, images=images, num_frames=17, out=tmp_path / "video.mp4")
    with pytest.warns(UserWarning, match=r"^Ignored, because there is no such field: num_frames\.$") as warned:
        next(events)
    assert warned[0].filename == __file__
    with pytest.raises(RequestError, match="Frame 9 lies outside the video"):
        list(events)


@pytest.mark.slow
def test_random_seed_is_drawn_and_returned(model: Model, tmp_path: Path) -> None:
    seeds = {keyreel.generate(SMALL | {"seed": None}, model=model, out=tmp_path / "v.mp4").seed for _ in range(2)}
    assert len(seeds) == 2


@pytest.mark.slow
def test_metadata_describes_the_request_without_secrets(model: Model, tmp_path: Path, picture: Path) -> None:
    uri = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
    out = tmp_path / "video.mp4"
    images = [{"image_url": uri}, {"image_url": str(picture), "start_frame_number": 8}]
    keyreel.generate(SMALL, images=images, model=model, out=out)
    comment = json.loads(read_metadata(out)["comment"])
    assert comment["request"]["seed"] == 3
    assert [image["image_url"] for image in comment["request"]["images"]] == ["data:", "picture.png"]
    assert comment["inputs"]["images.0"] == comment["inputs"]["images.1"]
    assert comment["model"]["sha256"] == model.fingerprint
    assert comment["sampling"]["guidance_scale"] == 3.0
    assert str(tmp_path) not in json.dumps(comment)


@pytest.mark.slow
async def test_a_video_is_made_within_an_event_loop(model: Model, tmp_path: Path, picture: Path) -> None:
    request = SMALL | {"images": [{"image_url": str(picture)}]}
    blocking = keyreel.generate(request, model=model, out=tmp_path / "blocking.mp4")
    beside = await keyreel.generate_async(request, model=model, out=tmp_path / "beside.mp4")
    assert (tmp_path / "blocking.mp4").read_bytes() == (tmp_path / "beside.mp4").read_bytes()
    assert (blocking.seed, beside.video.file_name) == (3, "beside.mp4")


@pytest.mark.slow
async def test_the_event_loop_stays_free_meanwhile(model: Model, tmp_path: Path) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counter = asyncio.create_task(count())
    events = [type(event) async for event in keyreel.stream_async(SMALL, model=model, out=tmp_path / "video.mp4")]
    counter.cancel()
    assert turns > 100
    assert events[-1] is Done


async def test_a_cancelled_task_leaves_no_file(model: Model, tmp_path: Path) -> None:
    steps = SMALL | {"number_of_steps": 50}
    async with aclosing(keyreel.stream_async(steps, model=model, out=tmp_path / "out" / "video.mp4")) as events:
        async for event in events:
            if isinstance(event, Step):
                break
    assert list((tmp_path / "out").iterdir()) == []
    task = asyncio.create_task(keyreel.generate_async(steps, model=model, out=tmp_path / "out" / "video.mp4"))
    async with asyncio.timeout(60):
        while not any((tmp_path / "out").iterdir()):
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list((tmp_path / "out").iterdir()) == []


def test_closing_the_iterator_leaves_no_file(model: Model, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    events = keyreel.stream(SMALL, model=model, out=tmp_path / "out" / "video.mp4")
    for event in events:
        if isinstance(event, Frames):
            break
    events.close()
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
def test_missing_checker_is_noticed_only_when_requested(model: Model, tmp_path: Path) -> None:
    def notices(**fields: Any) -> list[Notice]:
        events = keyreel.stream(SMALL, model=model, out=tmp_path / "v.mp4", **fields)
        return [event for event in events if isinstance(event, Notice)]

    assert len(notices()) == 1
    assert notices(enable_safety_checker=False) == []


@pytest.mark.slow
def test_last_event_holds_the_output(model: Model, tmp_path: Path) -> None:
    *others, last = keyreel.stream(SMALL, model=model, out=tmp_path / "v.mp4")
    assert isinstance(last, Done)
    assert Step(9) in others


@pytest.mark.parametrize(
    ("fields", "field", "type_"),
    [
        ({"expand_prompt": True}, "expand_prompt", "feature_not_supported"),
        ({"images": [{"image_url": "missing.png"}]}, "images.0.image_url", "file_download_error"),
        ({"images": [{"image_url": "text.png"}]}, "images.0.image_url", "unsupported_image_format"),
        ({"videos": [{"video_url": "text.png"}]}, "videos.0.video_url", "unsupported_video_format"),
        ({"images": [{"image_url": "picture.png", "start_frame_number": 9}]}, "images.0.start_frame_number", None),
        ({"images": [{"image_url": "picture.png"}] * 2}, "images.1.start_frame_number", "overlap"),
        ({"images": [{"image_url": "data:image/png;base64,!!!"}]}, "images.0.image_url", None),
        ({"loras": [{"path": "text.png"}]}, "loras.0.path", None),
        ({"loras": [{"path": "missing.safetensors"}]}, "loras.0.path", None),
        ({"number_of_frames": 5}, "number_of_frames", "greater_than_equal"),
    ],
)
@pytest.mark.usefixtures("picture")
def test_invalid_requests_are_refused_and_leave_no_file(
    model: Model, tmp_path: Path, fields: dict[str, Any], field: str, type_: str | None
) -> None:
    (tmp_path / "text.png").write_text("this is no picture")
    (tmp_path / "out").mkdir()
    with pytest.raises(RequestError) as caught:
        keyreel.generate(SMALL, **fields, model=model, out=tmp_path / "out" / "v.mp4", base=tmp_path)
    (problem,) = caught.value.problems
    assert ".".join(map(str, problem.loc)) == field
    assert type_ in (None, problem.type)
    assert "\n" not in str(problem)
    assert list((tmp_path / "out").iterdir()) == []


def test_all_invalid_inputs_are_reported_at_once(model: Model, tmp_path: Path) -> None:
    images = [{"image_url": "a.png"}, {"image_url": "b.png", "start_frame_number": 4}]
    with pytest.raises(RequestError) as caught:
        keyreel.generate(SMALL, images=images, model=model, base=tmp_path)
    assert [problem.loc for problem in caught.value.problems] == [
        ("images", 0, "image_url"),
        ("images", 1, "image_url"),
    ]


def test_items_without_effect_are_not_fetched(model: Model, tmp_path: Path) -> None:
    images = [{"image_url": "missing.png", "strength": 0}]
    loras = [{"path": "missing.safetensors", "scale": 0}]
    keyreel.generate(SMALL, images=images, loras=loras, model=model, out=tmp_path / "v.mp4")


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["stg", "multiscale", "distilled"])
def test_metadata_names_the_recipe(full_model: Model, tmp_path: Path, recipe: str) -> None:
    out = tmp_path / "video.mp4"
    keyreel.generate(SMALL, recipe=recipe, model=full_model, out=out)
    comment = json.loads(read_metadata(out)["comment"])
    assert comment["request"]["recipe"] == comment["sampling"]["recipe"] == recipe


def test_impossible_recipe_is_refused_before_the_model_is_loaded(tmp_path: Path, checkpoint: Path) -> None:
    events = keyreel.stream(SMALL, recipe="multiscale", model=str(checkpoint), out=tmp_path / "v.mp4")
    with pytest.raises(RequestError, match="recipe: Recipe multiscale needs a latent upsampler"):
        for event in events:
            assert event != Stage("model")


def test_setting_that_the_model_does_not_support_is_an_error(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYREEL_RECIPE", "distilled")
    with pytest.raises(ModelError, match="Recipe distilled needs a distilled model"):
        keyreel.generate(SMALL, model=str(checkpoint), out=tmp_path / "v.mp4")


@pytest.mark.slow
def test_tokens_are_counted_in_the_larger_pass(
    tmp_path: Path, full_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """480x480 has 2 latent frames of 15 x 15 cells. Its second pass draws 640x640."""
    monkeypatch.setenv("KEYREEL_MAX_TOKENS", str(20 * 20 * 2 - 1))
    keyreel.generate(SMALL, model=full_model, out=tmp_path / "v.mp4")
    with pytest.raises(RequestError, match="need 800 latent cells"):
        keyreel.generate(SMALL, recipe="multiscale", model=full_model, out=tmp_path / "v.mp4")


@pytest.mark.slow
def test_expanded_prompt_is_used_and_returned(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYREEL_EXPANDER_MODEL", str(language_model(tmp_path / "language")))
    files = [tmp_path / name for name in ("expanded.mp4", "again.mp4", "plain.mp4")]
    first, again = (keyreel.generate(SMALL, expand_prompt=True, model=model, out=file) for file in files[:2])
    assert first.prompt == again.prompt != SMALL["prompt"]
    assert files[0].read_bytes() == files[1].read_bytes()
    facts = json.loads(read_metadata(files[0])["comment"])
    assert (facts["request"]["prompt"], facts["expanded_prompt"]) == (SMALL["prompt"], first.prompt)
    keyreel.generate(SMALL, prompt=first.prompt, model=model, out=files[2])
    assert np.array_equal(sample_frames(files[0], 9), sample_frames(files[2], 9))


@pytest.mark.slow
@pytest.mark.parametrize("where", ["prompt", "picture", "video"])
def test_refused_content_leaves_no_file(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """In the case "video", the checker considers every frame indecent that is not black."""
    texts, pictures = tmp_path / "texts", tmp_path / "pictures"
    cases: dict[str, tuple[dict[str, object], dict[str, Any], Loc]] = {
        "prompt": (
            {"TEXT_CHECKER": text_classifier(texts), "TEXT_CHECKER_LABELS": "toxic"},
            {"prompt": f"a {FORBIDDEN} circle"},
            ("prompt",),
        ),
        "picture": (
            {"IMAGE_CHECKER": "nudenet", "IMAGE_CHECKER_LABELS": "FACE_FEMALE=0.4"},
            {"images": [{"image_url": str(ASTRONAUT)}]},
            ("images", 0, "image_url"),
        ),
        "video": ({"IMAGE_CHECKER": picture_classifier(pictures, safe_below=0.001)}, {}, ()),
    }
    environment, fields, loc = cases[where]
    for name, value in environment.items():
        monkeypatch.setenv(f"KEYREEL_{name}", str(value))
    stages = []
    with pytest.raises(RequestError) as caught:
        for event in keyreel.stream(SMALL | fields, model=model, out=tmp_path / "out" / "v.mp4"):
            stages += [event.name] if isinstance(event, Stage) else []
    (problem,) = caught.value.problems
    assert (problem.type, problem.loc) == ("content_policy_violation", loc)
    assert stages[-1] == "check"
    assert ("denoise" in stages) == (where == "video")
    assert not list(tmp_path.rglob("*.mp4"))
    keyreel.generate(SMALL | fields, enable_safety_checker=False, model=model, out=tmp_path / "v.mp4")


@pytest.mark.slow
def test_checker_that_cannot_be_loaded_is_an_error(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYREEL_IMAGE_CHECKER", str(tmp_path / "missing"))
    with pytest.raises(ModelError, match="KEYREEL_IMAGE_CHECKER"):
        keyreel.generate(SMALL, model=model, out=tmp_path / "v.mp4")
