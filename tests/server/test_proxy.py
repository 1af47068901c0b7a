"""The route that browsers call in place of fal."""

from typing import Any

import httpx
import pytest

from tests.server.live import APP, ENDPOINT, INPUT


def test_targets_on_fals_hosts_reach_our_own_routes(http: httpx.Client) -> None:
    def call(method: str, url: str, **options: Any) -> httpx.Response:
        return http.request(method, "/api/fal/proxy", headers={"x-fal-target-url": url}, **options)

    submitted = call("POST", f"https://queue.fal.run/{ENDPOINT}", json=INPUT).json()
    request = f"https://queue.fal.run/{APP}/requests/{submitted['request_id']}"
    events = call("GET", f"{request}/status/stream?logs=1")
    assert events.headers["content-type"].startswith("text/event-stream")
    assert '"COMPLETED"' in events.text
    status = call("GET", f"{request}/status?logs=1")
    assert (status.status_code, len(status.json()["logs"])) == (200, 2)
    result = call("GET", request)
    assert result.headers["x-fal-request-id"] == submitted["request_id"]
    assert call("POST", f"https://fal.run/{ENDPOINT}", json=INPUT).json() == result.json()
    assert call("PUT", f"{request}/cancel").status_code == 400
    initiated = call("POST", "https://rest.fal.ai/storage/upload/initiate?storage_type=fal-cdn-v3", json={})
    assert set(initiated.json()) == {"upload_url", "file_url"}


@pytest.mark.parametrize(
    "target",
    [
        "",
        "nonsense",
        "https://example.com/a",
        "http://queue.fal.run/a",
        "https://queue.fal.run.example.com/a",
        "https://user@example.com:80/queue.fal.run",
        "file:///etc/passwd",
        "https://[",
        "https://127.0.0.1/a",
    ],
)
def test_other_targets_are_refused(http: httpx.Client, target: str) -> None:
    answer = http.get("/api/fal/proxy", headers={"x-fal-target-url": target})
    assert (answer.status_code, answer.json()) == (400, "Invalid request")


def test_the_proxy_needs_a_key(http: httpx.Client) -> None:
    target = {"x-fal-target-url": f"https://queue.fal.run/{ENDPOINT}", "Authorization": ""}
    assert http.post("/api/fal/proxy", json=INPUT, headers=target).status_code == 401
