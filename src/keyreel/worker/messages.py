"""What the supervisor, its child, its preparer and its guard tell each other, and how it goes through a pipe.

A frame is a length, the name of a message and its fields as JSON. Nothing is ever unpickled: the preparer opens files
that nobody vouches for, and may not be what it was.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from struct import Struct
from typing import Any, get_args

from pydantic import ConfigDict, TypeAdapter

from keyreel.canvas import Grid
from keyreel.errors import Loc, Problem
from keyreel.events import Notice, Stage, Step
from keyreel.fetch import Fetched
from keyreel.guard import GuardPlan
from keyreel.lora_keys import Linears
from keyreel.prepare import Prepared
from keyreel.recipes import NO_WISHES, Abilities, RecipeName, Wishes
from keyreel.schema import Request

LENGTH = Struct("!I")
MAX_LENGTH = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Load:
    """To the child, first of all: the model to load. device: None is the fastest."""

    model: str
    device: str | None
    cache_dir: Path
    wishes: Wishes = NO_WISHES


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded. `linears`: what a LoRA's header is checked against."""

    name: str
    fingerprint: str
    device: str
    grid: Grid
    linears: Linears
    abilities: Abilities = field(default_factory=Abilities)


@dataclass(frozen=True, slots=True)
class LoadFailed:
    message: str


@dataclass(frozen=True, slots=True)
class Pin:
    """A condition without its pixels."""

    start: int
    strength: float


@dataclass(frozen=True, slots=True)
class Spooled:
    """What the preparer made: a job whose pixels lie in a folder, see `keyreel.worker.spool`."""

    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True)  # for the arrays that are not in it

    prepared: Prepared
    pins: tuple[Pin, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """To the child: make this video. `id` names the attempt."""

    id: str
    spooled: Spooled
    folder: Path
    video: Path
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Stop:
    """To the child: leave off at the next step, if you are still at it."""

    id: str


@dataclass(frozen=True, slots=True)
class Previewed:
    """A preview lies in a file of pixels. Whoever reads it deletes it."""

    pixels: Path


@dataclass(frozen=True, slots=True)
class Finished:
    """The video is written: so many bytes."""

    size: int


@dataclass(frozen=True, slots=True)
class Stopped:
    pass


@dataclass(frozen=True, slots=True)
class Refused:
    """The request is at fault."""

    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """The machine is at fault. A process that calls itself poisoned is about to exit."""

    message: str
    poisoned: bool = False


@dataclass(frozen=True, slots=True)
class Prepare:
    """To the preparer: check and decode what has been fetched. `settings`: those that `prepare` reads."""

    request: Request
    files: tuple[tuple[Loc, Fetched], ...]
    grid: Grid
    linears: Linears
    settings: Mapping[str, Any]
    recipe: RecipeName
    folder: Path


@dataclass(frozen=True, slots=True)
class LoadGuard:
    """To the guard, first of all."""

    plan: GuardPlan


@dataclass(frozen=True, slots=True)
class Guarding:
    """Everything in the plan is loaded."""


@dataclass(frozen=True, slots=True)
class Expand:
    """To the guard. picture: a file of pixels, the video's first ones."""

    prompt: str
    seed: int
    picture: Path | None


@dataclass(frozen=True, slots=True)
class Expanded:
    prompt: str


@dataclass(frozen=True, slots=True)
class Check:
    """To the guard: is this allowed? conditions: files of pixels, by their places in the request. preview: another."""

    prompts: tuple[str, ...] = ()
    conditions: tuple[tuple[Loc, Path], ...] = ()
    video: Path | None = None
    preview: Path | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """It is."""


Message = (
    Load
    | Ready
    | LoadFailed
    | Run
    | Stop
    | Stage
    | Step
    | Notice
    | Previewed
    | Finished
    | Stopped
    | Refused
    | Failed
    | Prepare
    | Spooled
    | LoadGuard
    | Guarding
    | Expand
    | Expanded
    | Check
    | Checked
)
_KINDS = {kind.__name__: kind for kind in get_args(Message)}


def encode(message: Message) -> bytes:
    """The whole frame."""
    name = type(message).__name__
    body = name.encode() + b" " + _adapter(name).dump_json(message)
    return LENGTH.pack(len(body)) + body


def body_length(head: bytes) -> int:
    """What the frame's first bytes say. Raises ValueError."""
    (length,) = LENGTH.unpack(head)
    if length > MAX_LENGTH:
        raise ValueError(f"A message of {length} bytes")
    return int(length)


def decode(body: bytes) -> Message:
    """Raises ValueError."""
    name, _, fields = body.partition(b" ")
    message: Message = _adapter(name.decode("ascii")).validate_json(fields)
    return message


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    if name not in _KINDS:
        raise ValueError("An unknown kind of message")
    return TypeAdapter(_KINDS[name])
