"""The response to an exception in our own code."""

import httpx
import pytest

from tests.server.live import LiveServer


def test_an_exception_in_a_route_is_answered_with_500(
    http: httpx.Client, server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(server.services.signer.__class__, "jwks", lambda _self: broken())
    answer = http.get("/.well-known/jwks.json", headers={"Origin": "https://app.example"})
    assert (answer.status_code, answer.json()) == (500, {"detail": "Internal Server Error"})
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["x-fal-request-id"]
