"""A request made ready: everything fetched, checked and decoded, nothing left that needs the network."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keyreel.canvas import Size
from keyreel.errors import Loc
from keyreel.recipes import RecipeName, StgMode, TwoPasses
from keyreel.settings import Settings

Pixels = NDArray[np.uint8]
"""(frames, height, width, 3), sRGB."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A picture (one frame) or a clip (8k+1 frames) that the video shows from frame `start` on, at the video's size."""

    pixels: Pixels
    start: int
    strength: float


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """A LoRA's weights on disk. `loc` is the LoRA's place in the request."""

    path: Path
    name: str
    sha256: str
    scale: float
    loc: Loc


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the model is run: the recipe, and the operator's part; see the fields of the same names in the settings."""

    recipe: RecipeName = "single"
    guidance_scale: float = 3.0
    stg_mode: StgMode = "attention_values"
    stochastic_sampling: bool = False
    adain: float = 1.0
    tone_map: float = 0.0
    condition_noise_scale: float = 0.15
    decode_timestep: float = 0.05
    decode_noise_scale: float = 0.025

    @classmethod
    def from_settings(cls, settings: Settings, recipe: RecipeName) -> "Sampling":
        operators = {name: getattr(settings, name) for name in cls.__slots__}
        return cls(**(operators | {"recipe": recipe}))


@dataclass(frozen=True, slots=True)
class Job:
    """What the engine needs to make one video of `frames` frames of `size`.

    passes: of a recipe that has two; without it they follow from `steps`. previews: whether to yield any.
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
