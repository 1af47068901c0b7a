"""What goes into the store and comes out of it."""

from dataclasses import dataclass, field
from enum import Enum, IntEnum, StrEnum, auto
from typing import Any

from keyreel.errors import KeyreelError

JsonObject = dict[str, Any]

DAY = 86_400.0


class State(StrEnum):
    """Where a request is. The names are those that a client of fal sees."""

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"


class Priority(IntEnum):
    """Lower goes first."""

    NORMAL = 0
    LOW = 1


class Level(StrEnum):
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARN = "WARN"
    ERROR = "ERROR"


class Standing(Enum):
    """What a worker learns when it beats."""

    CONTINUE = auto()
    CANCELLED = auto()
    """Stop at the next step and finish with `CANCELLED`."""
    LOST = auto()
    """The request is someone else's, or over: stop and throw the output away."""


class Cancellation(Enum):
    """What became of the wish to cancel."""

    REMOVED = auto()
    """It was waiting, and is completed now."""
    REQUESTED = auto()
    """It is running; its worker hears of it at the next beat."""
    ALREADY_COMPLETED = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class Success:
    output: JsonObject


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no output: a sentence, fal's name for it, and what else the client gets to see."""

    message: str
    type: str
    detail: Any = None


Outcome = Success | Failure

CANCELLED = Failure("The request was cancelled.", "client_cancelled")
START_TIMEOUT = Failure("The request did not start in the time it was given.", "request_timeout")
WORKER_LOST = Failure("The workers that ran this request stopped answering.", "runner_disconnected")


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A client's name for one submit, and the digest of what it submitted."""

    key: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRequest:
    """A request to be queued. Times are in seconds."""

    endpoint: str
    key_id: str
    input: JsonObject
    seed: int
    pool: str = "default"
    """The workers that may run it."""
    priority: Priority = Priority.NORMAL
    webhook_url: str | None = None
    idempotency: Idempotency | None = None
    start_timeout: float | None = None
    max_queue_length: int | None = None
    """Refuse when more than that are waiting."""
    max_of_key: int | None = None
    """Refuse when so many of the same key are waiting or running."""
    retry: bool = True
    """Whether a machine's failure is followed by another attempt."""
    retention: float = DAY
    """How long the outcome can be read."""
    output_lifetime: float | None = None
    """How long the video is kept; for ever when absent."""
    output_acl: JsonObject | None = None
    """Who may read the video; whoever has its link when absent."""


@dataclass(frozen=True, slots=True)
class Submitted:
    id: str
    position: int | None
    replayed: bool
    """Whether the same submit was answered before."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's right to run a request, until it expires or the next attempt begins."""

    id: str
    attempt: int
    endpoint: str
    key_id: str
    input: JsonObject
    seed: int
    checkpoint: str | None
    created: float
    output_lifetime: float | None = None
    output_acl: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of the log that the user sees; `age` is how many seconds ago it was written."""

    message: str
    level: Level = Level.INFO
    age: float = 0.0


@dataclass(frozen=True, slots=True)
class LogEntry:
    number: int
    """Grows from line to line; not by one."""
    attempt: int
    time: float
    level: Level
    message: str


@dataclass(frozen=True, slots=True)
class Status:
    """A request as its client sees it. Times are seconds since 1970."""

    id: str
    endpoint: str
    pool: str
    key_id: str
    state: State
    position: int | None
    """Requests that go before it, while it is in the queue."""
    attempt: int
    progress: JsonObject | None
    log_lines: int
    """How many there are: a copy of the log with as many is up to date."""
    cancel_requested: bool
    created: float
    started: float | None
    """When the last attempt began."""
    finished: float | None
    outcome: Outcome | None


@dataclass(frozen=True, slots=True)
class Reaped:
    """How many requests one sweep changed."""

    released: int
    """Leases that had expired."""
    timed_out: int
    deleted: int


@dataclass(frozen=True, slots=True)
class Depth:
    """How much waits or runs, and for how many seconds the oldest has been known."""

    pool: str
    state: State
    requests: int
    oldest: float


@dataclass(frozen=True, slots=True)
class Delivery:
    """A webhook call that is due, leased to whoever holds this."""

    id: int
    attempt: int
    url: str
    request_id: str
    key_id: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Key:
    id: str
    name: str
    admin: bool
    created: float
    revoked: float | None
    max_requests: int | None = None
    """Waiting and running at once; any number when absent."""


@dataclass(frozen=True, slots=True)
class NewKey:
    key: Key
    secret: str = field(repr=False)
    """Not stored: nobody can show it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFile:
    """A file about to be written to the object store under `object`. Without a size its content has yet to come."""

    key_id: str
    object: str
    name: str
    content_type: str
    size: int | None = None
    acl: JsonObject | None = None
    lifetime: float | None = None
    """Seconds, once the content is there; for ever when absent."""


@dataclass(frozen=True, slots=True)
class Content:
    """What has come for the file `file_id`: so many bytes."""

    file_id: str
    size: int


@dataclass(frozen=True, slots=True)
class File:
    id: str
    key_id: str
    object: str
    name: str
    content_type: str
    size: int | None
    acl: JsonObject | None
    created: float
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that runs requests on one device."""

    name: str
    pool: str
    device: str
    model: str
    ready: bool


class StoreError(KeyreelError):
    """The store refuses."""


class StoreInUseError(StoreError):
    """Another process has the SQLite file open."""


class QueueFullError(StoreError):
    def __init__(self, waiting: int, limit: int) -> None:
        super().__init__(f"{waiting} requests are waiting, more than the {limit} that the request allows.")
        self.waiting = waiting
        self.limit = limit


class KeyLimitError(StoreError):
    def __init__(self, limit: int) -> None:
        super().__init__(f"This key may have no more than {limit} requests waiting or running. Try again later.")
        self.limit = limit


class IdempotencyError(StoreError):
    def __init__(self, key: str) -> None:
        super().__init__(f"The idempotency key {key!r} was used for another request before.")
        self.key = key


class LeaseLostError(StoreError):
    """The request was given to someone else, or is over: throw the output away."""

    def __init__(self, lease: Lease) -> None:
        super().__init__(f"Attempt {lease.attempt} at request {lease.id} has lost its lease.")
        self.lease = lease
