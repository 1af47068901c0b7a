"""Converts rows of the store to the JSON that fal's clients read."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from keyreel.fal.outcomes import Failure, JsonObject
from keyreel.server.origins import Origins
from keyreel.store.records import LogEntry, State, Status

_SOURCE = "USER"
"""fal's word for lines that come from the application, not from the platform."""


def queue_urls(queue: str, endpoint_id: str, request_id: str) -> JsonObject:
    """Returns a request's URLs. As on fal, they name the application without the endpoint's path."""
    owner, alias, *_ = endpoint_id.split("/")
    url = f"{queue}/{owner}/{alias}/requests/{request_id}"
    return {"response_url": url, "status_url": f"{url}/status", "cancel_url": f"{url}/cancel"}


def status_view(origins: Origins, status: Status, lines: Sequence[LogEntry] | None) -> JsonObject:
    """Returns the status as JSON. When the client wants no log, `lines` is None and the field `logs` is null."""
    common = {
        "status": status.state,
        "request_id": status.id,
        **queue_urls(origins.queue, status.endpoint, status.id),
    }
    logs = None if lines is None else [_log_view(line) for line in lines]
    match status.state:
        case State.IN_QUEUE:
            return common | {"queue_position": status.position}
        case State.IN_PROGRESS:
            # `progress` is Keyreel's own; fal's clients ignore it.
            return common | {"logs": logs, "metrics": {}, "progress": origins.name(status.progress)}
        case State.COMPLETED:
            return common | {"logs": logs, "metrics": {"inference_time": _inference_time(status)}} | _error(status)


def _log_view(line: LogEntry) -> JsonObject:
    return {
        "message": line.message,
        "level": line.level,
        "source": _SOURCE,
        "timestamp": datetime.fromtimestamp(line.time, UTC).isoformat(),
        # fal's Swift client finds level and source only here.
        "labels": {"level": line.level, "source": _SOURCE},
    }


def _inference_time(status: Status) -> float | None:
    """Seconds, or None for a request that never started."""
    if status.started is None or status.finished is None:
        return None
    return round(status.finished - status.started, 3)


def _error(status: Status) -> dict[str, Any]:
    match status.outcome:
        case Failure(message, error_type):
            return {"error": message, "error_type": error_type}
    return {}
