"""What happens while a video is made, as it happens."""

from dataclasses import dataclass
from typing import Literal

from keyreel.job import Pixels
from keyreel.schema import Output

StageName = Literal[
    "inputs", "expand", "check", "model", "text", "conditions", "denoise", "upsample", "refine", "decode"
]


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage begins, with so many steps to report (0: it reports none)."""

    name: StageName
    steps: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """`done` steps of the stage that began last are done."""

    done: int


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that the user should know and that is no error."""

    message: str


@dataclass(frozen=True, slots=True)
class Preview:
    """A few frames, small, of what the video is going to look like as far as can be told by now."""

    pixels: Pixels


@dataclass(frozen=True, slots=True)
class Frames:
    """The next finished frames of the video, in playing order."""

    pixels: Pixels


@dataclass(frozen=True, slots=True)
class Done:
    """The file is written."""

    output: Output


Event = Stage | Step | Notice | Preview | Frames | Done
