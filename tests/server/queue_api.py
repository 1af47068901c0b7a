"""Calls of fal's queue over plain HTTP."""

import json
from collections.abc import Iterator
from typing import Any

import httpx

from tests.server.live import ENDPOINT


def submit(http: httpx.Client, prompt: str = "hold", **options: Any) -> dict[str, Any]:
    """Submits a request that is accepted. Returns the response."""
    answer = http.post(f"/queue/{ENDPOINT}", json={"prompt": prompt}, **options)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-fal-request-id"] == answer.json()["request_id"]
    return dict(answer.json())


def events(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    """Yields the events of a status stream until the server closes it."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    for line in answer.iter_lines():
        assert not line.startswith(":"), "the server sent a ping: nothing happened for a long time"
        if line.startswith("data: "):
            yield json.loads(line[6:])


def stream(http: httpx.Client, url: str) -> list[dict[str, Any]]:
    """Returns all events of the status stream at `url`."""
    with http.stream("GET", url) as answer:
        return list(events(answer))


def finish(http: httpx.Client, submitted: dict[str, Any]) -> list[dict[str, Any]]:
    """Waits until a request has completed. Returns the events of its status stream."""
    return stream(http, f"{submitted['status_url']}/stream")


def hold(http: httpx.Client) -> dict[str, Any]:
    """Submits a request that runs until the test releases or cancels it, and waits until it runs."""
    submitted = submit(http)
    with http.stream("GET", f"{submitted['status_url']}/stream") as answer:
        next(event for event in events(answer) if event["status"] == "IN_PROGRESS")
    return submitted
