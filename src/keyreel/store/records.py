"""The records that the store takes and returns, and its errors."""

from dataclasses import dataclass, field
from enum import Enum, IntEnum, StrEnum, auto
from math import ceil

from keyreel.errors import KeyreelError
from keyreel.fal.outcomes import JsonObject, Outcome
from keyreel.store.scopes import Scope

DAY = 86_400.0


class State(StrEnum):
    """The state of a request, by fal's names."""

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"


class Priority(IntEnum):
    """The lower number goes first."""

    NORMAL = 0
    LOW = 1


class Level(StrEnum):
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARN = "WARN"
    ERROR = "ERROR"


class LeaseStatus(Enum):
    """What a worker learns from a heartbeat."""

    CONTINUE = auto()
    CANCELLED = auto()
    """The request was cancelled: stop at the next step and finish with `CANCELLED`."""
    LOST = auto()
    """The lease was taken back, or the request is completed: stop and discard the output."""


class Cancellation(Enum):
    """The result of a cancel."""

    REMOVED = auto()
    """The request was waiting and is now completed."""
    REQUESTED = auto()
    """The request is running; its worker learns of the cancel at its next heartbeat."""
    ALREADY_COMPLETED = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A client's idempotency key for one submit, and the digest of what it submitted."""

    key: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRequest:
    """A request to be queued. Durations are in seconds."""

    endpoint: str
    key_id: str
    input: JsonObject
    seed: int
    pool: str = "default"
    """The group of workers that may run it."""
    priority: Priority = Priority.NORMAL
    webhook_url: str | None = None
    idempotency: Idempotency | None = None
    start_timeout: float | None = None
    max_queue_length: int | None = None
    """Refuse the request when more than this number are waiting."""
    retry: bool = True
    """Whether a failure that is not the request's fault leads to another attempt."""
    retention: float = DAY
    """How long the outcome can be read."""
    output_lifetime: float | None = None
    """How long the video is kept; None keeps it without limit."""
    output_acl: JsonObject | None = None
    """Who may read the video; None lets everyone with the link read it."""
    traceparent: str | None = None
    """The span of the submit, in which the spans of attempts and webhooks continue."""
    files: tuple[str, ...] = ()
    """The ids of the files that the input names."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """A queued request."""

    id: str
    position: int | None
    replayed: bool
    """Whether an earlier submit with the same idempotency key queued it."""


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
    traceparent: str | None = None
    priority: int = Priority.NORMAL


@dataclass(frozen=True, slots=True)
class LogLine:
    """A new line for the log that the user sees. age: seconds since it was written."""

    message: str
    level: Level = Level.INFO
    age: float = 0.0


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A stored log line. time: seconds since 1970."""

    number: int
    """Increases from line to line, with gaps."""
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
    """How many requests go before it; None unless it is in the queue."""
    attempt: int
    progress: JsonObject | None
    log_lines: int
    """How many log lines exist. A cached log with as many lines is up to date."""
    cancel_requested: bool
    created: float
    started: float | None
    """When the last attempt began."""
    finished: float | None
    outcome: Outcome | None


@dataclass(frozen=True, slots=True)
class Reaped:
    """How many requests one `Queue.reap` changed."""

    released: int
    """Requests whose lease had expired."""
    timed_out: int
    deleted: int


@dataclass(frozen=True, slots=True)
class Depth:
    """How many requests of a pool are in a state, and the age of the oldest in seconds."""

    pool: str
    state: State
    requests: int
    oldest: float


@dataclass(frozen=True, slots=True)
class Delivery:
    """A webhook call that is due, leased to the caller of `Deliveries.claim`."""

    id: int
    attempt: int
    url: str
    request_id: str
    key_id: str
    outcome: Outcome
    traceparent: str | None = None


MAX_NUMBER = 2**31 - 1
"""The largest limit on a number of requests."""
MAX_SIZE = 2**63 - 1
"""The largest limit in bytes."""
MAX_TIME = 253_402_300_799
"""The end of the year 9999, in seconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a key may have and do. None means no limit."""

    max_requests: int | None = None
    """Requests that wait and run at once."""
    max_queued: int | None = None
    """Requests that wait at once."""
    max_running: int | None = None
    """Requests that run at once. Further ones wait, and do not hold up other keys."""
    max_per_minute: int | None = None
    """Requests submitted in a minute."""
    max_bytes: int | None = None
    """Total size of the stored files: uploads, inputs and videos."""
    max_upload_bytes: int | None = None
    """Size of the uploads and inputs that arrive in a day, in UTC."""


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Quota:
    """A limit that holds for a key, and how much of it is used. limit: None means no limit."""

    limit: int | None
    used: int


@dataclass(frozen=True, slots=True)
class Key:
    """An API key. Times are seconds since 1970."""

    id: str
    name: str
    scopes: frozenset[Scope]
    created: float
    revoked: float | None
    limits: Limits = NO_LIMITS
    expires_at: float | None = None

    @property
    def admin(self) -> bool:
        return Scope.OPERATE in self.scopes


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just created, with its secret."""

    key: Key
    secret: str = field(repr=False)
    """Not stored, so it cannot be shown again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFile:
    """A file that is about to be written to the object store under `object`. Size None: its content is yet to come."""

    key_id: str
    object: str
    name: str
    content_type: str
    size: int | None = None
    acl: JsonObject | None = None
    lifetime: float | None = None
    """Seconds from the arrival of the content; None keeps the file without limit."""


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a file has arrived. size: in bytes."""

    file_id: str
    size: int


@dataclass(frozen=True, slots=True)
class File:
    """A file in the object store. Times are seconds since 1970."""

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
class DayOfUse:
    """What a key has used on one day, counted when requests end and files arrive."""

    key_id: str
    name: str | None
    """The key's name; None for a key that is not in the table of keys."""
    day: int
    """Days since 1 January 1970, UTC."""
    completed: int
    failed: int
    cancelled: int
    device_seconds: float
    """Time on a device in all attempts, including failed ones."""
    bytes: int
    """Size of the files that arrived: uploads, inputs and videos."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A supervisor that runs requests on one device."""

    name: str
    pool: str
    device: str
    model: str
    ready: bool


class StoreError(KeyreelError):
    """The store refuses a call."""


class StoreInUseError(StoreError):
    """Another process has the SQLite file open."""


class StoreUnavailableError(StoreError):
    """The database cannot be opened."""


class WorkerNameTakenError(StoreError):
    """Another worker of this name is running."""

    def __init__(self, name: str) -> None:
        super().__init__(f"A worker named {name!r} is already running. Set KEYREEL_WORKER_NAME to another name.")


class QueueFullError(StoreError):
    """The queue is longer than the request allows."""

    def __init__(self, waiting: int, limit: int) -> None:
        super().__init__(f"{waiting} requests are waiting, more than the {limit} that this request allows.")
        self.waiting = waiting
        self.limit = limit


class LimitError(StoreError):
    """A limit of the key refuses the call."""


class KeyLimitError(LimitError):
    """The key has, or has done, as much as it may at present. retry_after: seconds until it may have more, if known."""

    def __init__(self, limit: str, retry_after: float | None = None) -> None:
        when = "later" if retry_after is None else f"in {ceil(retry_after)} s"
        super().__init__(f"This key may {limit}. Try again {when}.")
        self.retry_after = retry_after


class UploadTooLargeError(LimitError):
    """The upload is larger than what the key may upload in a day."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"This key may upload no more than {limit:,} bytes a day, and the file has {size:,}.")


class StorageLimitError(LimitError):
    """The key's files are as large in total as they may be, or would be larger with a new one."""

    def __init__(self, stored: int, added: int, limit: int) -> None:
        more = f"; the new file has {added:,}" if added else ""
        super().__init__(
            f"This key may store {limit:,} bytes and stores {stored:,}{more}. "
            "Delete requests with their videos, wait until files expire, or ask the operator for more."
        )


class IdempotencyError(StoreError):
    """The idempotency key belongs to a different request."""

    def __init__(self, key: str) -> None:
        super().__init__(f"The idempotency key {key!r} was already used for a different request. Use another key.")


class LeaseLostError(StoreError):
    """The attempt no longer holds the request: discard the output."""

    def __init__(self, lease: Lease) -> None:
        super().__init__(f"Attempt {lease.attempt} at request {lease.id} has lost its lease.")
