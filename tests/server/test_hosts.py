"""Requests with fal's hosts in the Host header."""

import httpx
import pytest

from keyreel.fal.hosts import NO_WEBSOCKETS
from tests.server.live import APP, ENDPOINT, INPUT, VIDEO, LiveServer


@pytest.mark.parametrize(
    ("host", "way"), [("queue.fal.run", "queue"), ("fal.run", "run"), ("FAL.run:443", "run"), ("ws.fal.run", "run")]
)
def test_the_host_selects_queue_or_run(http: httpx.Client, host: str, way: str) -> None:
    answer = http.post(f"/{ENDPOINT}", json=INPUT, headers={"Host": host}).json()
    assert ("request_id" in answer) is (way == "queue")
    assert ("video" in answer) is (way == "run")


@pytest.mark.parametrize(
    ("rest", "media"),
    [("rest.fal.ai", "v3.fal.media"), ("rest.alpha.fal.ai", "v3b.fal.media"), ("rest.fal.ai", "fal.media")],
)
def test_uploads_and_downloads_on_fals_hosts(http: httpx.Client, rest: str, media: str) -> None:
    body = {"file_name": "a.png", "content_type": "image/png"}
    made = http.post("/storage/upload/initiate", json=body, headers={"Host": rest}).json()
    # A program that knows only fal's hosts is led back to one of them.
    assert {httpx.URL(made[name]).host for name in ("upload_url", "file_url")} == {"v3.fal.media"}
    upload = httpx.URL(made["upload_url"]).raw_path.decode()
    assert http.put(upload, content=b"a picture", headers={"Host": media}).is_success
    path = httpx.URL(made["file_url"]).raw_path.decode()
    assert http.get(path, headers={"Host": media}).content == b"a picture"
    # The queue's host serves no files.
    assert http.get(path, headers={"Host": "queue.fal.run"}).status_code == 404


@pytest.mark.slow
def test_answers_name_the_host_that_was_asked(http: httpx.Client, server: LiveServer) -> None:
    own = f"{server.url}/files/token/video.mp4"
    server.worker.video = {"url": own, "content_type": "video/mp4"}
    fals = {"Host": "queue.fal.run"}
    made = http.post(f"/{ENDPOINT}", json=INPUT, headers=fals).json()
    ran = http.post(f"/{ENDPOINT}", json=INPUT, headers={"Host": "fal.run"}).json()
    path = f"/{APP}/requests/{made['request_id']}"
    status = http.get(f"{path}/status", headers=fals).json()
    result = http.get(path, headers=fals).json()
    server.worker.video = VIDEO
    for answer in (made, status):
        assert answer["response_url"] == f"https://queue.fal.run{path}"
        assert answer["status_url"] == f"https://queue.fal.run{path}/status"
        assert answer["cancel_url"] == f"https://queue.fal.run{path}/cancel"
    assert ran["video"]["url"] == result["video"]["url"] == "https://v3.fal.media/files/token/video.mp4"
    # Everyone else gets links to this server.
    assert http.get(f"/queue{path}").json()["video"]["url"] == own
    assert http.get(f"/queue{path}/status").json()["status_url"] == f"{server.url}/queue{path}/status"


def test_the_proxy_route_answers_with_direct_links(http: httpx.Client, server: LiveServer) -> None:
    """A browser that calls `proxyUrl` fetches the video itself, and can reach only this server."""
    target = {"x-fal-target-url": f"https://queue.fal.run/{ENDPOINT}"}
    answer = http.post("/api/fal/proxy", json=INPUT, headers=target).json()
    assert answer["status_url"].startswith(f"{server.url}/queue/")


@pytest.mark.parametrize(
    ("host", "path"),
    [("fal.run", f"/{ENDPOINT}/realtime"), ("ws.fal.run", f"/{ENDPOINT}?prompt=x"), ("localhost", f"/{ENDPOINT}")],
)
def test_half_a_handshake_is_refused(http: httpx.Client, server: LiveServer, host: str, path: str) -> None:
    """A proxy that does not know WebSockets leaves out `Connection: Upgrade`."""
    before = len(server.worker.leases)
    answer = http.get(path, headers={"Host": host, "Upgrade": "websocket"})
    assert (answer.status_code, answer.json()) == (404, {"detail": NO_WEBSOCKETS})
    assert len(server.worker.leases) == before
