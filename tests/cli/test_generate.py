"""`keyreel generate`, run as a process."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keyreel.media.mp4 import read_metadata

FAST = ["--resolution", "480p", "--aspect-ratio", "1:1", "--number-of-frames", "9", "--number-of-steps", "1"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.fromarray(np.full((64, 64, 3), (20, 30, 200), np.uint8)).save(tmp_path / "blue.png")
    (tmp_path / "text.png").write_text("no picture")
    return tmp_path


def start(folder: Path, model: Path | str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "keyreel", "generate", *arguments, "--model", str(model)],
        cwd=folder,
        env=os.environ | {"KEYREEL_CACHE_DIR": str(folder / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder: Path, model: Path | str, *arguments: str) -> tuple[int, str, str]:
    process = start(folder, model, *arguments)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.mark.slow
def test_json_prints_only_the_output(folder: Path, checkpoint: Path) -> None:
    flags = [*FAST, "--seed", "4", "--image", "blue.png@8:0.5", "--out", "v.mp4", "--sheet", "v.png", "--json"]
    code, out, err = run(folder, checkpoint, "a red circle", *flags)
    assert code == 0, err
    output = json.loads(out)
    assert (output["prompt"], output["seed"]) == ("a red circle", 4)
    assert output["video"]["url"] == (folder / "v.mp4").as_uri()
    assert output["video"]["file_size"] == (folder / "v.mp4").stat().st_size
    assert (folder / "v.png").read_bytes().startswith(b"\x89PNG")
    assert err.count("No image checker is active here") == 1
    request = json.loads(read_metadata(folder / "v.mp4")["comment"])["request"]
    assert request["images"] == [{"image_url": "blue.png", "start_frame_number": 8, "strength": 0.5}]


@pytest.mark.slow
def test_flags_override_a_request_file(folder: Path, checkpoint: Path) -> None:
    (folder / "requests").mkdir()
    shutil.copy(folder / "blue.png", folder / "requests" / "other.png")
    request: dict[str, Any] = {
        "prompt": "a star",
        "num_inference_steps": 2,
        "resolution": "480p",
        "aspect_ratio": "1:1",
        "number_of_frames": 9,
        "images": [{"image_url": "other.png", "start_frame_num": 8}],
        "colour": "red",
    }
    (folder / "requests" / "r.json").write_text(json.dumps(request))
    code, out, err = run(folder, checkpoint, "--request", "requests/r.json", "--seed", "9", "--out", "v.mp4")
    assert code == 0, err
    assert "Ignored, because there is no such field: colour, images.0.start_frame_num." in err
    assert out == f"Video: {folder / 'v.mp4'} (seed 9)\n"
    comment = json.loads(read_metadata(folder / "v.mp4")["comment"])["request"]
    assert (comment["number_of_steps"], comment["seed"]) == (2, 9)


@pytest.mark.slow
def test_recipe_can_be_given_as_a_flag(folder: Path, full_checkpoint: Path) -> None:
    code, _, err = run(folder, full_checkpoint, "a red circle", *FAST, "--recipe", "multiscale", "--out", "v.mp4")
    assert code == 0, err
    assert json.loads(read_metadata(folder / "v.mp4")["comment"])["sampling"]["recipe"] == "multiscale"
    assert [line for line in err.splitlines() if line.startswith(("Upsampling", "Refining"))]


def error_line(code: int, out: str, err: str) -> str:
    """Returns the line on stderr that reports the error."""
    assert (code, out) == (2, ""), err
    assert "Traceback" not in err
    (line,) = [line for line in err.splitlines() if line.startswith("keyreel: ")]
    return line


@pytest.mark.slow
def test_unknown_model_lists_the_choices(folder: Path) -> None:
    assert "demo, ltxv-13b-0.9.7-dev" in error_line(*run(folder, "missing-model", "x"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "prompt: "),
        (["x", "--number-of-frames", "5"], "number_of_frames: "),
        (["x", "--image", "missing.png"], "images.0.image_url: "),
        (["x", "--image", "text.png"], "images.0.image_url: "),
        (["x", "--image", "blue.png@89"], "images.0.start_frame_number: "),
        (["x", "--image", "blue.png", "--image", "blue.png"], "images.1.start_frame_number: "),
        (["x", "--image", ""], "images.0.image_url: "),
        (["x", "--lora", "blue.png"], "loras.0.path: "),
        (["x", "--expand-prompt"], "expand_prompt: "),
        (["x", "--recipe", "multiscale"], "recipe: "),
        (["x", "--request", "missing.json"], "Cannot read the request"),
    ],
)
def test_errors_are_one_line(folder: Path, checkpoint: Path, arguments: list[str], message: str) -> None:
    before = set(folder.iterdir())
    code, out, err = run(folder, checkpoint, *arguments)
    assert message in error_line(code, out, err)
    assert {path.name for path in set(folder.iterdir()) - before} <= {"cache"}


@pytest.mark.slow
def test_unwritable_output_path_is_reported_before_generating(folder: Path, checkpoint: Path) -> None:
    code, out, err = run(folder, checkpoint, "x", *FAST, "--out", "text.png/v.mp4")
    assert "text.png" in error_line(code, out, err)
    assert "Denoising" not in err


@pytest.mark.slow
def test_ctrl_c_stops_at_the_next_step_and_leaves_no_file(folder: Path, checkpoint: Path) -> None:
    flags = ["--resolution", "480p", "--number-of-frames", "161", "--number-of-steps", "50", "--out", "v.mp4"]
    process = start(folder, checkpoint, "a red circle", *flags)
    assert process.stderr
    seen = ""
    while "Denoising" not in seen:
        seen += process.stderr.read(1)
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted; nothing was written." in rest
    assert not [path for path in folder.iterdir() if path.suffix in (".mp4", ".part")]
