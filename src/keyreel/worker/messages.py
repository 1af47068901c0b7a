"""The messages between the supervisor and the engine, decode and guard processes, and their encoding.

A frame is a length, the name of a message type and the message's fields as JSON. Pickle is not used, because an
untrusted file may have taken over the decode process.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from struct import Struct
from typing import Any, get_args

from pydantic import ConfigDict, TypeAdapter

from keyreel.checkpoints.lora_keys import Linears
from keyreel.errors import Loc, Problem
from keyreel.fal.schema import Request
from keyreel.media.limits import Limits
from keyreel.safety.plan import GuardPlan
from keyreel.video.canvas import Grid
from keyreel.video.events import Notice, Stage, Step
from keyreel.video.job import AdapterFile, InputFile, Prepared, Sampling
from keyreel.video.recipes import RECIPE_DEFAULTS, Capabilities, RecipeSettings

LENGTH = Struct("!I")
MAX_LENGTH = 256 * 1024 * 1024
"""Bytes of a message, at most."""


@dataclass(frozen=True, slots=True)
class Load:
    """The first message to the engine process: the model to load. device: one, or several; None means the fastest.

    hub_token: opens the operator's private and gated repositories.
    """

    model: str
    device: str | None
    cache_dir: Path
    settings: RecipeSettings = RECIPE_DEFAULTS
    hub_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded. linears: the shapes against which a LoRA's header is checked.

    traits: properties of the machine on which the bytes of a video depend.
    """

    name: str
    fingerprint: str
    device: str
    grid: Grid
    linears: Linears
    capabilities: Capabilities = field(default_factory=Capabilities)
    traits: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The engine process or the guard process could not load its models."""

    message: str


@dataclass(frozen=True, slots=True)
class Pin:
    """A condition without its pixels."""

    start: int
    strength: float


@dataclass(frozen=True, slots=True)
class Spooled:
    """The answer to Decode: a job whose pixels are files in a folder, see `keyreel.worker.spool`."""

    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True)  # Job's conditions hold arrays; here there are none

    prepared: Prepared
    pins: tuple[Pin, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """To the engine process: make this video. id: the attempt's.

    checkpoint_every: seconds between two checkpoints; 0 makes none. identity: the header of their files.
    resume: the file of the checkpoint to go on from.
    """

    id: str
    spooled: Spooled
    folder: Path
    video: Path
    metadata: Mapping[str, str]
    checkpoint_every: float = 0.0
    identity: Mapping[str, str] = field(default_factory=dict)
    resume: Path | None = None


@dataclass(frozen=True, slots=True)
class Preload:
    """To the engine process: read these LoRAs beside its work, because the next run needs them."""

    adapters: tuple[AdapterFile, ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """To the engine process: stop the run with this id at the next step, if it is still running.

    keep: write a checkpoint of that step first. A video that is drawn already is then finished.
    """

    id: str
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Previewed:
    """A preview is ready in a file of pixels, which the reader deletes."""

    pixels: Path


@dataclass(frozen=True, slots=True)
class Checkpointed:
    """A checkpoint is ready in a file, which the reader deletes."""

    file: Path


@dataclass(frozen=True, slots=True)
class Drawn:
    """The last frame of the run with this id has left the device, which is free. Its video is still being written."""

    id: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The video of the run with this id is written. size: in bytes."""

    id: str
    size: int


@dataclass(frozen=True, slots=True)
class Unwritten:
    """The video of the run with this id was drawn, but could not be written."""

    id: str
    message: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The run with this id was stopped by Stop."""

    id: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The request is at fault; another attempt would fail as well."""

    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """The request is not at fault. poisoned: the device no longer computes, and the process is about to exit."""

    message: str
    poisoned: bool = False


@dataclass(frozen=True, slots=True)
class Crashed:
    """The decoder ended without an answer to Decode. how: see `describe_exit`."""

    how: str


@dataclass(frozen=True, slots=True)
class Decode:
    """To the decode process: check and decode the fetched files. The request comes without its URLs."""

    request: Request
    files: tuple[tuple[Loc, InputFile], ...]
    grid: Grid
    linears: Linears
    limits: Limits
    sampling: Sampling
    folder: Path


@dataclass(frozen=True, slots=True)
class LoadGuard:
    """The first message to the guard process: what to load. hub_token: see Load."""

    plan: GuardPlan
    hub_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class GuardReady:
    """The guard process has loaded its plan."""


@dataclass(frozen=True, slots=True)
class Expand:
    """To the guard process: expand this prompt. picture: a file with the pixels of the first condition."""

    prompt: str
    seed: int
    picture: Path | None


@dataclass(frozen=True, slots=True)
class Expanded:
    """The answer to Expand."""

    prompt: str


@dataclass(frozen=True, slots=True)
class Check:
    """To the guard process: check whether this content is allowed.

    conditions: the places in the request of pictures and clips, and files with their pixels.
    preview: a file of pixels.
    """

    prompts: tuple[str, ...] = ()
    conditions: tuple[tuple[Loc, Path], ...] = ()
    video: Path | None = None
    preview: Path | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """The checked content is allowed."""


Message = (
    Load
    | Ready
    | LoadFailed
    | Run
    | Preload
    | Stop
    | Stage
    | Step
    | Notice
    | Previewed
    | Checkpointed
    | Drawn
    | Finished
    | Unwritten
    | Stopped
    | Refused
    | Failed
    | Decode
    | Crashed
    | Spooled
    | LoadGuard
    | GuardReady
    | Expand
    | Expanded
    | Check
    | Checked
)
_KINDS = {kind.__name__: kind for kind in get_args(Message)}


def describe_exit(status: int) -> str:
    """Returns how a process ended: `status` is its exit status, or the negative number of the signal that killed it."""
    return f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"


def encode(message: Message) -> bytes:
    """Returns the message as a whole frame."""
    name = type(message).__name__
    body = name.encode() + b" " + _adapter(name).dump_json(message)
    return LENGTH.pack(len(body)) + body


def body_length(header: bytes) -> int:
    """Returns the length of the body that follows a frame's header. Raises ValueError if it is too long."""
    (length,) = LENGTH.unpack(header)
    if length > MAX_LENGTH:
        raise ValueError(f"The message has {length} bytes, more than the allowed {MAX_LENGTH}")
    return int(length)


def decode(body: bytes) -> Message:
    """Returns the message in a frame's body. Raises ValueError if it is malformed."""
    name, _, fields = body.partition(b" ")
    message: Message = _adapter(name.decode("ascii")).validate_json(fields)
    return message


def prepare(*kinds: type[Message]) -> None:
    """Prepares to encode these kinds of messages, which takes milliseconds."""
    for kind in kinds:
        _adapter(kind.__name__)


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    if name not in _KINDS:
        raise ValueError("Unknown message type")
    return TypeAdapter(_KINDS[name])
