"""The events that the engine yields while it makes a video."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from keyreel.video.job import Pixels

StageName = Literal[
    "inputs", "expand", "check", "wait", "model", "text", "conditions", "denoise", "upsample", "refine", "decode"
]
STAGE_TITLES: dict[StageName, str] = {
    "inputs": "Fetching inputs",
    "expand": "Expanding the prompt",
    "check": "Checking the content",
    "wait": "Waiting for the device",
    "model": "Loading the model",
    "text": "Reading the prompt",
    "conditions": "Encoding conditions",
    "denoise": "Denoising",
    "upsample": "Upsampling",
    "refine": "Refining",
    "decode": "Decoding",
}
"""The stages as logs and progress bars call them."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage begins. steps: the number of steps that it will report; 0 if it reports none.

    done: steps that were finished by an earlier run, from whose checkpoint this one goes on.
    """

    name: StageName
    steps: int = 0
    done: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """`done` steps of the current stage are finished."""

    done: int


@dataclass(frozen=True, slots=True)
class Notice:
    """A message for the user that is not an error."""

    message: str


@dataclass(frozen=True, slots=True)
class Preview:
    """A few small frames that show what the video is expected to look like."""

    pixels: Pixels


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far the denoising has come. A run that is given it goes on from there and makes the same video.

    index: of the pass. step: the steps done in it.
    tokens: returns them, (1, N, C) fp32. It copies them from the device, and may be called in any thread.
    """

    index: int
    step: int
    tokens: Callable[[], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Frames:
    """The next finished frames of the video, in playing order."""

    pixels: Pixels


Event = Stage | Step | Notice | Preview | Checkpoint | Frames
