"""CORS: which calls a browser's scripts may make from other origins."""

import httpx

from tests.server.live import ENDPOINT


def test_scripts_of_every_origin_may_call(http: httpx.Client) -> None:
    headers = "authorization,content-type,x-fal-queue-priority,x-fal-target-url"
    preflight = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": headers,
        "Authorization": "",
    }
    for path in (f"/queue/{ENDPOINT}", "/api/fal/proxy", "/storage/upload/initiate"):
        answer = http.options(path, headers=preflight)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-headers"] == headers
    # Without these headers, a script could not read an error.
    for path in (f"/queue/{ENDPOINT}", "/nothing"):
        answer = http.post(path, headers={"Origin": "https://app.example", "Authorization": ""})
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "x-fal-request-id" in answer.headers["access-control-expose-headers"]
