from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from keyreel.engine.models import Model
from keyreel.engine.pipeline import run
from keyreel.engine.preview import CELLS, COUNT, FRAMES, PIXELS, is_due, preview, without_margins
from keyreel.video.canvas import Size
from keyreel.video.events import Frames, Preview, Stage, Step
from tests.engine.test_pipeline import JOB, video

PREVIEWED = replace(JOB, steps=12, frames=41, previews=True)


def test_previews_do_not_change_the_video(model: Model) -> None:
    assert np.array_equal(video(model, PREVIEWED), video(model, replace(PREVIEWED, previews=False)))


def test_previews_come_between_the_steps(model: Model) -> None:
    names = [type(event).__name__ for event in run(model, PREVIEWED) if isinstance(event, Stage | Step | Preview)]
    denoising = "".join(name[:2] for name in names).split("St" * 3)[0]
    assert names.count("Preview") == COUNT
    assert "PrPr" not in denoising
    assert not any(isinstance(event, Preview) for event in run(model, replace(PREVIEWED, previews=False)))


@pytest.mark.slow
def test_the_last_preview_resembles_the_video(model: Model) -> None:
    """Compares the last frames of both, reduced to a 4 by 4 grid."""
    events = list(run(model, replace(PREVIEWED, steps=50)))
    *_, last = (event.pixels for event in events if isinstance(event, Preview))
    whole = np.concatenate([event.pixels for event in events if isinstance(event, Frames)])
    assert last.shape[0] == FRAMES
    assert np.corrcoef(means(last[-1]), means(whole[-1]))[0, 1] > 0.9


def means(frame: np.ndarray) -> np.ndarray:
    """Returns the means of the cells of a 4 by 4 grid."""
    rows = np.array_split(frame.astype(float), 4, axis=0)
    return np.array([cell.mean((0, 1)) for row in rows for cell in np.array_split(row, 4, axis=1)]).ravel()


@torch.inference_mode()
def test_a_preview_of_large_latents_is_small(model: Model) -> None:
    clean = torch.randn(1, model.transformer.config.in_channels, 2, 2 * CELLS, 4 * CELLS)
    pixels = preview(model.vae, clean, 0.05)
    assert pixels.shape == (2, PIXELS // 2, PIXELS, 3)


def test_a_preview_has_the_shape_of_its_video(model: Model) -> None:
    """Also where the model draws margins: here a canvas of 96x96 for a video of 96x80."""
    size = PREVIEWED.size
    shapes = {event.pixels.shape[1:3] for event in run(model, PREVIEWED) if isinstance(event, Preview)}
    ((height, width),) = shapes
    assert width / height == pytest.approx(size.width / size.height, rel=0.05)


def test_margins_are_cut_on_both_sides() -> None:
    rows = np.arange(154, dtype=np.uint8)[None, :, None, None] * np.ones((1, 1, 256, 3), np.uint8)
    inner = without_margins(rows, Size(1280, 768), Size(1280, 720))
    assert inner.shape == (1, 144, 256, 3)
    assert (inner[0, 0, 0, 0], inner[0, -1, 0, 0]) == (5, 148)


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 30, 50])
def test_previews_are_spread_over_the_steps(steps: int) -> None:
    due = [done for done in range(1, steps + 1) if is_due(done, steps)]
    assert len(due) == min(COUNT, steps - 1) or (len(due) == COUNT - 1 and steps < 2 * COUNT)
    assert steps not in due
    gaps = {after - before for before, after in pairwise(due)}
    assert not gaps or max(gaps) - min(gaps) <= 1
