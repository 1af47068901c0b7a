"""Passes pixels from the decode process to the engine process as files, so that they bypass the supervisor.

Previews and checkpoints come out of the engine process in the same way.
"""

import secrets
from dataclasses import replace
from pathlib import Path

import numpy as np

from keyreel.video.job import Condition, Job, Pixels, Prepared
from keyreel.worker.messages import Pin, Spooled


def spool(prepared: Prepared, folder: Path) -> Spooled:
    """Writes the pixels of each condition to `pixels_folder(folder)` and returns the rest."""
    conditions = prepared.job.conditions
    for index, condition in enumerate(conditions):
        np.save(pixels_path(folder, index), condition.pixels, allow_pickle=False)
    pins = tuple(Pin(condition.start, condition.strength) for condition in conditions)
    return Spooled(replace(prepared, job=replace(prepared.job, conditions=())), pins)


def unspool(spooled: Spooled, folder: Path) -> Job:
    """Returns the job with the pixels that `spool` wrote to `folder`."""
    conditions = tuple(
        Condition(read_pixels(pixels_path(folder, index)), pin.start, pin.strength)
        for index, pin in enumerate(spooled.pins)
    )
    return replace(spooled.prepared.job, conditions=conditions)


def write_preview(pixels: Pixels, folder: Path) -> Path:
    """Writes a preview to a new file, because the previous one may still be in use."""
    path = folder / f"preview-{secrets.token_hex(4)}.npy"
    np.save(path, pixels, allow_pickle=False)
    return path


def checkpoint_path(folder: Path) -> Path:
    """Returns a new path for a checkpoint."""
    return folder / f"checkpoint-{secrets.token_hex(4)}.safetensors"


def pixels_folder(folder: Path) -> Path:
    """Returns the only folder of a request that the decoder may write to: the fetched files must stay as they are."""
    return folder / "pixels"


def pixels_path(folder: Path, index: int) -> Path:
    return pixels_folder(folder) / f"{index}.npy"


def read_pixels(path: Path) -> Pixels:
    pixels: Pixels = np.load(path, allow_pickle=False)
    return pixels
