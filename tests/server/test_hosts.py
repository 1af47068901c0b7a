"""Requests with fal's hosts in the Host header."""

import httpx
import pytest

from keyreel.server.hosts import NO_WEBSOCKETS
from tests.server.live import ENDPOINT, INPUT, LiveServer


@pytest.mark.parametrize(
    ("host", "way"), [("queue.fal.run", "queue"), ("fal.run", "run"), ("FAL.run:443", "run"), ("ws.fal.run", "run")]
)
def test_the_host_selects_queue_or_run(http: httpx.Client, host: str, way: str) -> None:
    answer = http.post(f"/{ENDPOINT}", json=INPUT, headers={"Host": host}).json()
    assert ("request_id" in answer) is (way == "queue")
    assert ("video" in answer) is (way == "run")


@pytest.mark.parametrize(("rest", "media"), [("rest.fal.ai", "v3.fal.media"), ("rest.alpha.fal.ai", "v3b.fal.media")])
def test_uploads_and_downloads_on_fals_hosts(http: httpx.Client, rest: str, media: str) -> None:
    body = {"file_name": "a.png", "content_type": "image/png"}
    made = http.post("/storage/upload/initiate", json=body, headers={"Host": rest}).json()
    assert http.put(made["upload_url"], content=b"a picture").is_success
    path = httpx.URL(made["file_url"]).raw_path.decode()
    assert http.get(path, headers={"Host": media}).content == b"a picture"
    # The queue's host serves no files.
    assert http.get(path, headers={"Host": "queue.fal.run"}).status_code == 404


@pytest.mark.parametrize(
    ("host", "path"),
    [("fal.run", f"/{ENDPOINT}/realtime"), ("ws.fal.run", f"/{ENDPOINT}?prompt=x"), ("localhost", f"/{ENDPOINT}")],
)
def test_a_websocket_is_refused(http: httpx.Client, server: LiveServer, host: str, path: str) -> None:
    before = len(server.worker.leases)
    handshake = {
        "Host": host,
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    answer = http.get(path, headers=handshake)
    assert (answer.status_code, answer.json()) == (404, {"detail": NO_WEBSOCKETS})
    assert len(server.worker.leases) == before
