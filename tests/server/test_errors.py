"""Responses for paths and methods without a route."""

import httpx
import pytest

from tests.server.live import ENDPOINT


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/queue/a",
        "/queue/a/b/c/d",
        "/a/b/c",
        "/%00",
        "/queue/%ff/%2f/x",
        "/run",
        "/queue/workflows/a/b",
        "/queue/comfy/a/b/c",
    ],
)
def test_an_unknown_path_is_answered_with_404(http: httpx.Client, path: str) -> None:
    for method in ("GET", "POST"):
        answer = http.request(method, path)
        assert answer.status_code == 404, answer.text
        assert "not found" in answer.json()["detail"]
        assert answer.headers["x-fal-request-id"]
    assert http.get("/nothing").json() == {"detail": "Path /nothing not found"}


def test_an_unsupported_method_is_answered_with_405(http: httpx.Client) -> None:
    answer = http.delete(f"/queue/{ENDPOINT}")
    assert (answer.status_code, answer.json()) == (405, {"detail": "Method Not Allowed"})
