"""What a submit stores in the queue."""

from typing import Any

import httpx
import pytest

from tests.server.live import ENDPOINT, LiveServer
from tests.server.queue_api import finish, submit
from tests.server.storage_api import Api
from tests.spans import recorder, span_id

PIXEL = "data:image/png;base64,iVBORw0KGgo="


def test_the_seed_is_fixed_when_the_request_is_queued(http: httpx.Client, server: LiveServer) -> None:
    drawn, given = submit(http, "a fox"), http.post(f"/queue/{ENDPOINT}", json={"prompt": "a fox", "seed": 7}).json()
    finish(http, drawn)
    finish(http, given)
    lease = next(lease for lease in server.worker.leases if lease.id == drawn["request_id"])
    assert http.get(drawn["response_url"]).json()["seed"] == lease.seed
    assert http.get(given["response_url"]).json()["seed"] == 7


def test_data_uris_become_files(http: httpx.Client, server: LiveServer) -> None:
    images = [{"image_url": PIXEL}, {"image_url": "data:nonsense"}, {"image_url": "https://example.com/a.png"}, 3]
    answer = http.post(f"/queue/{ENDPOINT}", json={"prompt": "a fox", "images": images, "videos": {"a": 1}}).json()
    finish(http, answer)
    lease = next(lease for lease in server.worker.leases if lease.id == answer["request_id"])
    stored, invalid, linked, wrong = lease.input["images"]
    assert stored["image_url"].startswith(f"{server.url}/files/")
    assert (invalid, linked, wrong) == (images[1], images[2], 3)
    file = http.get(stored["image_url"], headers={"Authorization": ""})
    assert file.headers["content-type"] == "image/png"
    assert file.content.startswith(b"\x89PNG")


@pytest.mark.parametrize("video", [{"video_url": PIXEL, "start_frame_num": 8}, {"start_frame_num": 8}, "a", [3]])
def test_the_data_uri_of_a_clip_to_extend_becomes_a_file(http: httpx.Client, server: LiveServer, video: Any) -> None:
    endpoint = "fal-ai/ltx-video-v095/extend"
    answer = http.post(f"/queue/{endpoint}", json={"prompt": "a fox", "video": video}).json()
    finish(http, answer)
    lease = next(lease for lease in server.worker.leases if lease.id == answer["request_id"])
    if isinstance(video, dict) and "video_url" in video:
        assert lease.input["video"]["video_url"].startswith(f"{server.url}/files/")
    else:
        assert lease.input["video"] == video


def test_a_request_continues_the_clients_trace(http: httpx.Client, server: LiveServer) -> None:
    recorder().clear()
    trace = "0af7651916cd43dd8448eb211c80319c"
    submitted = submit(http, "a secret", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    finish(http, submitted)
    (span,) = (span for span in recorder().get_finished_spans() if span.name == "submit")
    lease = next(lease for lease in server.worker.leases if lease.id == submitted["request_id"])
    assert lease.traceparent == f"00-{trace}-{span_id(span):016x}-01"
    assert span.attributes == {"keyreel.endpoint": ENDPOINT, "keyreel.request_id": submitted["request_id"]}


async def test_a_key_that_another_process_has_revoked_submits_nothing(api: Api) -> None:
    """This process still knows the key for some seconds."""
    assert (await api.client.get("/api/requests", headers=api.auth())).status_code == 200
    await api.services.store.keys.revoke(api.key.key.id)
    assert (await api.client.get("/api/requests", headers=api.auth())).status_code == 200
    refused = await api.client.post(f"/queue/{ENDPOINT}", json={"prompt": "a fox"}, headers=api.auth())
    assert refused.status_code == 401
    assert "was revoked" in refused.json()["detail"]
    upload = {"content_type": "image/png", "file_name": "a.png"}
    assert (await api.client.post("/storage/upload/initiate", json=upload, headers=api.auth())).status_code == 401


@pytest.mark.parametrize("again", [{"prompt": "a fox"}, {"prompt": "a cat"}])
def test_data_uris_of_a_request_that_is_not_queued_are_deleted(
    http: httpx.Client, server: LiveServer, again: dict[str, str]
) -> None:
    headers = {"Idempotency-Key": str(again)}
    images = {"images": [{"image_url": PIXEL}]}
    finish(http, http.post(f"/queue/{ENDPOINT}", json={"prompt": "a fox", **images}, headers=headers).json())
    stored = server.call(server.services.store.browse.usage())
    http.post(f"/queue/{ENDPOINT}", json={**again, **images}, headers=headers)
    assert server.call(server.services.store.browse.usage()) == stored


def test_a_deleted_request_takes_its_data_uris_along_and_leaves_uploads(http: httpx.Client) -> None:
    upload = http.post("/storage/upload/initiate", json={"content_type": "image/png", "file_name": "a.png"}).json()
    http.put(upload["upload_url"], content=b"a picture")
    kept = http.post(f"/queue/{ENDPOINT}", json={"images": [{"image_url": upload["file_url"]}]}).json()
    submitted = http.post(f"/queue/{ENDPOINT}", json={"images": [{"image_url": PIXEL}]}).json()
    finish(http, submitted)
    (picture,) = http.get(f"/api/requests/{submitted['request_id']}").json()["input"]["images"]
    # Like the page, when a request is used again.
    again = http.post(f"/queue/{ENDPOINT}", json={"images": [picture, {"image_url": "https://example.com"}]}).json()
    for each in (kept, again):
        finish(http, each)
    statuses = []
    for each in (submitted, again, kept):
        assert http.delete(f"/api/requests/{each['request_id']}").status_code == 204
        statuses.append(http.get(picture["image_url"]).status_code)
    assert statuses == [200, 410, 410]
    assert http.get(upload["file_url"]).status_code == 200
