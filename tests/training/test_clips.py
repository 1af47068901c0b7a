import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training.clips import of_clips, read_clips
from training.content import Layout, Pins, Shot

from keyreel.media.mp4 import Mp4Writer
from keyreel.video.canvas import Size


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a clip of 17 frames, 192 x 128: red on the left, and green that brightens on the right."""
    frames = np.zeros((17, 128, 192, 3), np.uint8)
    frames[:, :, :96, 0] = 220
    frames[:, :, 96:, 1] = np.linspace(40, 240, 17)[:, None, None]
    with Mp4Writer(tmp_path / "one.mp4", Size(192, 128), 25, {}) as writer:
        writer.write(frames)
    (tmp_path / "one.txt").write_text("a red and green wall\n")
    return tmp_path


def test_clips_are_sampled_at_the_times_of_the_batch(folder: Path) -> None:
    content = of_clips(read_clips(folder))
    shot = Shot(Layout(1, 2, 3, 17, 3), Pins(), torch.tensor([0.0, 16.0, 40.0]), None)
    shown = content(Random(0), shot)  # noqa: S311
    clip = shown.clip
    assert shown.caption == "a red and green wall"
    assert clip.shape == (3, 3, 16, 24)
    assert clip[0, 0, :, :10].mean() > 0.8
    assert clip[1, 0, :, 14:].mean() < 0.25 < 0.85 < clip[1, 1, :, 14:].mean()
    torch.testing.assert_close(clip[:, 2], clip[:, 1])


def test_a_clip_without_a_caption_is_an_error(folder: Path) -> None:
    (folder / "one.txt").unlink()
    with pytest.raises(ValueError, match=r"one\.mp4"):
        read_clips(folder)


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no videos"):
        read_clips(tmp_path)


@pytest.mark.slow
def test_the_command_trains_a_lora_for_the_demo_model(folder: Path) -> None:
    out = folder / "look.safetensors"
    command = [sys.executable, "-m", "training.lora", "--clips", str(folder), "--out", str(out), "--steps", "2"]
    subprocess.run(command, check=True, timeout=300)
    tensors = load_file(out)
    assert any(tensor.any() for name, tensor in tensors.items() if name.endswith("lora_B.weight"))
    assert not (folder / "look.state").exists(), "the next run would go on from this one and ignore its clips"


@pytest.mark.slow
def test_the_command_says_what_its_clips_lack(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "training.lora", "--clips", str(tmp_path), "--out", str(tmp_path / "look")]
    ended = subprocess.run(command, check=False, timeout=300, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "holds no videos" in ended.stderr
    assert "Traceback" not in ended.stderr
