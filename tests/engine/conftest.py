"""A job and a model for tests of memory plans."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from keyreel.engine import devices, pipeline
from keyreel.engine.models import Model, load_model
from keyreel.video.canvas import Size
from keyreel.video.events import Event, Frames
from keyreel.video.job import Job
from tests.tiny_checkpoints import tiny_checkpoint

JOB = Job("a red star", "dark", Size(96, 64), frames=9, steps=2, frame_rate=25, seed=5)


def pixels(events: Iterable[Event]) -> np.ndarray:
    """Returns the video that a run yields."""
    return np.concatenate([event.pixels for event in events if isinstance(event, Frames)])


@pytest.fixture(scope="session")
def bf16_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is stored in bf16 and computes in fp32, so that streaming converts its weights."""
    return tiny_checkpoint(tmp_path_factory.mktemp("bf16") / "tiny", dtype=torch.bfloat16)


@pytest.fixture
def bf16_model(bf16_checkpoint: Path, tmp_path: Path) -> Model:
    """A new model for each test, because tests change its plan."""
    return load_model(str(bf16_checkpoint), "cpu", tmp_path)


@pytest.fixture(scope="session")
def expected(bf16_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """The video of `JOB` under the plan with which a model is loaded."""
    return pixels(pipeline.run(load_model(str(bf16_checkpoint), "cpu", tmp_path_factory.mktemp("cache")), JOB))


@pytest.fixture
def no_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that gives no pinned memory."""
    empty = torch.empty

    def refuse(*_arguments: Any, **_options: Any) -> torch.Tensor:
        raise torch.AcceleratorError("CUDA error: out of memory")

    def empty_or_refuse(*sizes: int, pin_memory: bool = False, **options: Any) -> torch.Tensor:
        return refuse() if pin_memory else empty(*sizes, **options)

    monkeypatch.setattr(torch.Tensor, "pin_memory", refuse)
    monkeypatch.setattr(torch, "empty", empty_or_refuse)
    devices._warn_of_pinning.cache_clear()
