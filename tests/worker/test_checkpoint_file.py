from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from keyreel.video.canvas import Grid, Size
from keyreel.video.events import Checkpoint
from keyreel.video.job import AdapterFile, Job, Sampling
from keyreel.worker.checkpoint_file import (
    UnusableCheckpointError,
    identity_of,
    read_checkpoint,
    write_checkpoint,
)
from keyreel.worker.messages import Ready

LORA = AdapterFile(Path("/cache/lora"), "lora.safetensors", "5" * 64, -0.5, ("loras", 0, "path"))
JOB = Job("a “red” circle", "", Size(480, 480), 9, 2, 25, 7, adapters=(LORA,))
MODEL = Ready("demo", "f" * 64, "cuda:0", Grid(32, 8), {}, traits={"device": "NVIDIA H200", "torch": "2.13.0"})
METADATA = {"comment": '{"request": {"seed": 7}}'}
IDENTITY = identity_of(METADATA, JOB, MODEL)
TOKENS = np.random.default_rng(0).standard_normal((1, 5, 4), np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_checkpoint(Checkpoint(1, 12, lambda: TOKENS), IDENTITY, tmp_path / "checkpoint.safetensors")
    return tmp_path / "checkpoint.safetensors"


def test_what_is_read_equals_what_was_written(path: Path) -> None:
    saved = read_checkpoint(path)
    assert (saved.checkpoint.index, saved.checkpoint.step) == (1, 12)
    assert np.array_equal(saved.checkpoint.tokens(), TOKENS)
    assert saved.prompt == JOB.prompt
    saved.check(IDENTITY)


def test_any_damage_is_noticed(path: Path) -> None:
    content = path.read_bytes()
    for position in range(0, len(content), 7):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with pytest.raises(UnusableCheckpointError):
            read_checkpoint(path)
    path.write_bytes(content[:-1])
    with pytest.raises(UnusableCheckpointError, match="cannot be read"):
        read_checkpoint(path)


def test_a_file_of_another_format_is_not_used(tmp_path: Path) -> None:
    save_file({"other": TOKENS}, tmp_path / "other")
    with pytest.raises(UnusableCheckpointError, match="cannot be read"):
        read_checkpoint(tmp_path / "other")
    save_file({"tokens": TOKENS}, tmp_path / "newer", {"format": "2"})
    with pytest.raises(UnusableCheckpointError, match="another format"):
        read_checkpoint(tmp_path / "newer")


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("request", identity_of({"comment": '{"request": {"seed": 8}}'}, JOB, MODEL)),
        ("prompt", identity_of(METADATA, replace(JOB, prompt="a green circle"), MODEL)),
        ("recipe", identity_of(METADATA, replace(JOB, sampling=Sampling("multiscale")), MODEL)),
        ("loras", identity_of(METADATA, replace(JOB, adapters=(replace(LORA, scale=1.0),)), MODEL)),
        ("loras", identity_of(METADATA, replace(JOB, adapters=(replace(LORA, sha256="6" * 64),)), MODEL)),
        ("model", identity_of(METADATA, JOB, replace(MODEL, fingerprint="e" * 64))),
        ("device", identity_of(METADATA, JOB, replace(MODEL, traits={**MODEL.traits, "device": "NVIDIA L4"}))),
        ("torch", identity_of(METADATA, JOB, replace(MODEL, traits={**MODEL.traits, "torch": "2.14.0"}))),
        ("ranks", identity_of(METADATA, JOB, replace(MODEL, traits={**MODEL.traits, "ranks": "2"}))),
    ],
)
def test_a_checkpoint_of_another_video_or_machine_is_not_used(path: Path, name: str, other: dict[str, str]) -> None:
    with pytest.raises(UnusableCheckpointError, match=f"another {name}"):
        read_checkpoint(path).check(other)


def test_where_the_model_lies_does_not_matter(path: Path) -> None:
    read_checkpoint(path).check(identity_of(METADATA, JOB, replace(MODEL, name="copy", device="cuda:1")))
