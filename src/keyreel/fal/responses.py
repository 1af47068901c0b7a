"""The bodies of the queue's responses, for the documents that describe them.

`keyreel.server.views` writes these bodies without the models, because polling must be cheap. Tests compare the two.
"""

from typing import Any, Literal

from pydantic import BaseModel, Field

from keyreel.video.events import StageName


class Labels(BaseModel):
    level: str
    source: str


class LogLine(BaseModel):
    """A line of a request's log."""

    message: str
    level: str = Field(description="`DEBUG`, `INFO`, `WARN` or `ERROR`.")
    source: str
    timestamp: str = Field(description="ISO 8601, in UTC.")
    labels: Labels


class Metrics(BaseModel):
    inference_time: float | None = Field(
        default=None, description="Seconds from start to end. Null for a request that never started."
    )


class Preview(BaseModel):
    """A picture of what the video is expected to look like."""

    url: str
    frames: int = Field(description="Frames in the picture, one below the other.")


class Progress(BaseModel):
    """What a running request is doing."""

    stage: StageName
    step: int = Field(description="Steps of the stage that are done.")
    steps: int = Field(description="Steps of the stage. 0 if it reports none.")
    seconds_per_step: float | None = None
    seconds_left: float | None = Field(default=None, description="Time left in this stage.")
    preview: Preview | None = None


class QueueStatus(BaseModel):
    """The state of a request."""

    status: Literal["IN_QUEUE", "IN_PROGRESS", "COMPLETED"] = Field(
        description="`COMPLETED` also after a failure or a cancellation: see `error`."
    )
    request_id: str
    response_url: str = Field(description="GET the output here once the request is completed.")
    status_url: str
    cancel_url: str = Field(description="PUT here to cancel.")
    gateway_request_id: str | None = Field(default=None, description="The request's id, in the response to a submit.")
    queue_position: int | None = Field(
        default=None, description="While the request is queued: the number of requests before it."
    )
    logs: tuple[LogLine, ...] | None = Field(
        default=None, description="The log, once the request is running, if the call asked for it; otherwise null."
    )
    metrics: Metrics | None = None
    progress: Progress | None = Field(default=None, description="While the request is running. Keyreel extension.")
    error: str | None = Field(default=None, description="Why a completed request has no output.")
    error_type: str | None = None


class Cancellation(BaseModel):
    """What became of a cancellation."""

    status: Literal["OK", "CANCELLATION_REQUESTED", "ALREADY_COMPLETED", "NOT_FOUND"]


class NotFound(BaseModel):
    """There is no such request, or it belongs to another key."""

    status: Literal["NOT_FOUND"]


class PlainError(BaseModel):
    """An error of the service."""

    detail: str
    error_type: str | None = None


class InputProblem(BaseModel):
    """What is wrong with one value of the input."""

    loc: tuple[str | int, ...] = Field(description="Where: `body`, then field names and indices.")
    msg: str
    type: str
    url: str
    ctx: dict[str, Any] | None = None


class InputError(BaseModel):
    """The input is at fault."""

    detail: tuple[InputProblem, ...]
