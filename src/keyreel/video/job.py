"""A prepared request: its inputs are fetched, checked and decoded. The engine needs no network."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keyreel.errors import Loc
from keyreel.video.canvas import Size
from keyreel.video.recipes import RecipeName, StgMode, TwoPasses

Pixels = NDArray[np.uint8]
"""(frames, height, width, 3), sRGB."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A picture (one frame) or clip (8k+1 frames), at the video's size, that the video shows from frame `start` on."""

    pixels: Pixels
    start: int
    strength: float


@dataclass(frozen=True, slots=True)
class InputFile:
    """A fetched file. `name` and `content_type` come from its source and may be wrong."""

    path: Path
    sha256: str
    name: str
    content_type: str | None = None


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """A LoRA's weights on disk. loc: the LoRA's location in the request."""

    path: Path
    name: str
    sha256: str
    scale: float
    loc: Loc


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the model is run: the recipe, and the settings of the same names."""

    recipe: RecipeName = "single"
    guidance_scale: float = 3.0
    stg_mode: StgMode = "attention_values"
    stochastic_sampling: bool = False
    adain: float = 1.0
    tone_map: float = 0.0
    condition_noise_scale: float = 0.15
    decode_timestep: float = 0.05
    decode_noise_scale: float = 0.025


@dataclass(frozen=True, slots=True)
class Job:
    """What the engine needs to make one video of `frames` frames of `size`.

    passes: the steps of a two-pass recipe; None derives them from `steps`.
    previews, checkpoints: whether to yield previews and, after each step, a checkpoint.
    """

    prompt: str
    negative_prompt: str
    size: Size
    frames: int
    steps: int
    frame_rate: int
    seed: int
    reverse: bool = False
    conditions: tuple[Condition, ...] = ()
    adapters: tuple[AdapterFile, ...] = ()
    sampling: Sampling = Sampling()
    passes: TwoPasses | None = None
    previews: bool = False
    checkpoints: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """The job, and the SHA-256 of each input file by its location in the request (for the video's metadata)."""

    job: Job
    inputs: dict[str, str]
