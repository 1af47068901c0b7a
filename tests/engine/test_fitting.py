from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from keyreel.checkpoints.memory import Plan
from keyreel.engine import autoencoder, denoise, fitting, pipeline, transformer
from keyreel.engine.models import Model
from keyreel.video.events import Notice
from tests.engine.conftest import JOB, pixels


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[Exception | None]:
    """Errors that the next predictions of the transformer raise, in this order. None means that it computes."""
    errors: list[Exception | None] = []
    real = transformer.velocities

    def velocities(*args: Any) -> Any:
        if errors and (error := errors.pop(0)):
            raise error
        return real(*args)

    monkeypatch.setattr(denoise, "velocities", velocities)
    return errors


def test_a_job_that_runs_out_of_memory_runs_again_under_the_next_plan(
    bf16_model: Model, expected: np.ndarray, failing: list[Exception | None]
) -> None:
    failing[:] = [None, torch.OutOfMemoryError("CUDA out of memory")]
    events = list(fitting.run(bf16_model, JOB))
    notices = [event.message for event in events if isinstance(event, Notice)]
    assert notices == ["cpu ran out of memory. Trying again with another memory plan: the text encoder streams."]
    assert bf16_model.placement.plan == Plan(text=False, blocks=2)
    assert np.array_equal(pixels(iter(events)), expected)


def test_a_job_runs_again_only_once(bf16_model: Model, failing: list[Exception | None]) -> None:
    failing[:] = [torch.OutOfMemoryError("one"), torch.OutOfMemoryError("two")]
    with pytest.raises(torch.OutOfMemoryError, match="two"):
        list(fitting.run(bf16_model, JOB))


def test_other_errors_are_raised(bf16_model: Model, failing: list[Exception | None]) -> None:
    failing[:] = [RuntimeError("CUDA error: an illegal memory access was encountered")]
    with pytest.raises(RuntimeError, match="illegal"):
        list(fitting.run(bf16_model, JOB))


def test_the_second_run_does_not_repeat_frames(
    bf16_model: Model, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failed = autoencoder.decode, list[int]()

    def decode(*args: Any) -> Iterator[torch.Tensor]:
        for index, frame in enumerate(real(*args)):
            if index == 8 and not failed:
                failed.append(index)
                raise torch.OutOfMemoryError("CUDA out of memory")
            yield frame

    monkeypatch.setattr(pipeline, "decode", decode)
    monkeypatch.setattr(pipeline, "FRAMES_PER_EVENT", 5)
    assert np.array_equal(pixels(fitting.run(bf16_model, JOB)), expected)
    assert failed
