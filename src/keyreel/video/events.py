"""The events that the engine yields while it makes a video."""

from dataclasses import dataclass
from typing import Literal

from keyreel.video.job import Pixels

StageName = Literal[
    "inputs", "expand", "check", "model", "text", "conditions", "denoise", "upsample", "refine", "decode"
]
STAGE_TITLES: dict[StageName, str] = {
    "inputs": "Fetching inputs",
    "expand": "Expanding the prompt",
    "check": "Checking the content",
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
    """A stage begins. steps: the number of steps that it will report; 0 if it reports none."""

    name: StageName
    steps: int = 0


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
class Frames:
    """The next finished frames of the video, in playing order."""

    pixels: Pixels


Event = Stage | Step | Notice | Preview | Frames
