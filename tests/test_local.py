import base64
import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

import keyreel
from keyreel.engine.models import Model
from keyreel.errors import RequestError
from keyreel.events import Done, Frames, Notice, Step
from keyreel.media.mp4 import read_metadata

SMALL: dict[str, Any] = {
    "prompt": "a red circle",
    "resolution": "480p",
    "aspect_ratio": "1:1",
    "number_of_frames": 9,
    "number_of_steps": 1,
    "seed": 3,
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYREEL_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(np.full((300, 400, 3), (200, 30, 30), np.uint8)).save(path)
    return path


def test_a_request_becomes_a_file(model: Model, tmp_path: Path) -> None:
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


def test_the_same_request_gives_the_same_bytes(model: Model, tmp_path: Path, picture: Path) -> None:
    request = SMALL | {"images": [{"image_url": "picture.png"}, {"image_url": str(picture), "start_frame_number": 8}]}
    files = [tmp_path / "one.mp4", tmp_path / "two.mp4"]
    for file in files:
        keyreel.generate(request, model=model, out=file, base=tmp_path)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_seed_is_drawn_and_told(model: Model, tmp_path: Path) -> None:
    seeds = {keyreel.generate(SMALL | {"seed": None}, model=model, out=tmp_path / "v.mp4").seed for _ in range(2)}
    assert len(seeds) == 2


def test_metadata_says_how_to_make_it_again_and_keeps_secrets(model: Model, tmp_path: Path, picture: Path) -> None:
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


def test_closing_the_iterator_leaves_no_file(model: Model, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    events = keyreel.stream(SMALL, model=model, out=tmp_path / "out" / "video.mp4")
    for event in events:
        if isinstance(event, Frames):
            break
    events.close()
    assert list((tmp_path / "out").iterdir()) == []


def test_the_missing_checker_is_said_when_it_is_asked_for(model: Model, tmp_path: Path) -> None:
    def notices(**fields: Any) -> list[Notice]:
        events = keyreel.stream(SMALL, model=model, out=tmp_path / "v.mp4", **fields)
        return [event for event in events if isinstance(event, Notice)]

    assert len(notices()) == 1
    assert notices(enable_safety_checker=False) == []


def test_the_last_event_holds_the_output(model: Model, tmp_path: Path) -> None:
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
def test_bad_requests_are_refused_and_leave_nothing(
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


def test_all_bad_inputs_are_named_at_once(model: Model, tmp_path: Path) -> None:
    images = [{"image_url": "a.png"}, {"image_url": "b.png", "start_frame_number": 4}]
    with pytest.raises(RequestError) as caught:
        keyreel.generate(SMALL, images=images, model=model, base=tmp_path)
    assert [problem.loc for problem in caught.value.problems] == [
        ("images", 0, "image_url"),
        ("images", 1, "image_url"),
    ]


def test_items_without_effect_are_not_even_fetched(model: Model, tmp_path: Path) -> None:
    images = [{"image_url": "missing.png", "strength": 0}]
    loras = [{"path": "missing.safetensors", "scale": 0}]
    keyreel.generate(SMALL, images=images, loras=loras, model=model, out=tmp_path / "v.mp4")
