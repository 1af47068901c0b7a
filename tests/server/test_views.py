"""The JSON of a status, in fal's form."""

from typing import Any

import pytest
from openapi_schema_validator import OAS30Validator

from keyreel.fal.endpoints import MULTICONDITIONING
from keyreel.fal.openapi import describe
from keyreel.fal.outcomes import CANCELLED, Outcome, Success
from keyreel.files.links import Links
from keyreel.server.origins import Origins
from keyreel.server.views import queue_urls, status_view
from keyreel.store.records import Level, LogEntry, State, Status

URL = "https://example.com/keyreel"
ENDPOINT = "fal-ai/ltx-video-lora/multiconditioning"
ORIGINS = Origins(f"{URL}/queue", Links(URL, b"secret"), URL)
LINE = LogEntry(number=7, attempt=1, time=1_700_000_000.5, level=Level.WARN, message="The prompt was cut.")


def status(state: State, **changes: Any) -> Status:
    values: dict[str, Any] = {
        "id": "id-1",
        "endpoint": ENDPOINT,
        "pool": "default",
        "key_id": "key-1",
        "state": state,
        "position": None,
        "attempt": 1,
        "progress": None,
        "log_lines": 0,
        "cancel_requested": False,
        "created": 100.0,
        "started": None,
        "finished": None,
        "outcome": None,
    }
    return Status(**(values | changes))


@pytest.mark.parametrize("endpoint", ["fal-ai/ltx-video", ENDPOINT, "fal-ai/ltx-video-13b-distilled/image-to-video"])
def test_urls_name_the_application_without_the_endpoints_path(endpoint: str) -> None:
    application = "/".join(endpoint.split("/")[:2])
    base = f"{URL}/queue/{application}/requests/id-1"
    assert queue_urls(f"{URL}/queue", endpoint, "id-1") == {
        "response_url": base,
        "status_url": f"{base}/status",
        "cancel_url": f"{base}/cancel",
    }


def test_a_waiting_request_has_a_position_and_no_log() -> None:
    view = status_view(ORIGINS, status(State.IN_QUEUE, position=2), [])
    assert view == {
        "status": "IN_QUEUE",
        "request_id": "id-1",
        "queue_position": 2,
        **queue_urls(f"{URL}/queue", ENDPOINT, "id-1"),
    }


def test_a_log_line_has_fals_fields_and_its_time_in_utc() -> None:
    view = status_view(ORIGINS, status(State.IN_PROGRESS, started=101.0), [LINE])
    assert view["logs"] == [
        {
            "message": "The prompt was cut.",
            "level": "WARN",
            "source": "USER",
            "timestamp": "2023-11-14T22:13:20.500000+00:00",
            "labels": {"level": "WARN", "source": "USER"},
        }
    ]


@pytest.mark.parametrize("state", [State.IN_PROGRESS, State.COMPLETED])
def test_an_unwanted_log_differs_from_an_empty_one(state: State) -> None:
    assert status_view(ORIGINS, status(state), None)["logs"] is None
    assert status_view(ORIGINS, status(state), [])["logs"] == []


@pytest.mark.parametrize(
    ("outcome", "started", "seconds", "error"),
    [
        (Success({}), 101.0, 1.235, {}),
        (CANCELLED, None, None, {"error": CANCELLED.message, "error_type": "client_cancelled"}),
    ],
)
def test_a_completed_request_tells_its_time_and_its_error(
    outcome: Outcome, started: float | None, seconds: float | None, error: dict[str, str]
) -> None:
    view = status_view(ORIGINS, status(State.COMPLETED, started=started, finished=102.2346, outcome=outcome), None)
    assert view["metrics"] == {"inference_time": seconds}
    assert {name: view[name] for name in ("error", "error_type") if name in view} == error


@pytest.mark.parametrize(
    "of",
    [
        status(State.IN_QUEUE, position=2),
        status(State.IN_QUEUE),
        status(State.IN_PROGRESS),
        status(State.IN_PROGRESS, progress={"stage": "text", "step": 0, "steps": 0, "seconds_left": None}),
        status(State.IN_PROGRESS, progress={"stage": "decode", "step": 1, "steps": 2, "preview": None}),
        status(State.COMPLETED, outcome=CANCELLED),
        status(State.COMPLETED, started=1.0, finished=2.5, outcome=Success({})),
    ],
    ids=lambda of: of.state,
)
@pytest.mark.parametrize("lines", [None, [], [LINE]], ids=["no log", "empty log", "log"])
def test_every_status_is_as_the_openapi_document_says(of: Status, lines: list[LogEntry] | None) -> None:
    components = describe(MULTICONDITIONING, URL)["components"]
    schema = {"$ref": "#/components/schemas/QueueStatus", "components": components}
    OAS30Validator(schema).validate(status_view(ORIGINS, of, lines))
