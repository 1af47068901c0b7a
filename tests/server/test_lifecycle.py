"""fal's lifecycle headers: how long a file is kept and who may read it."""

import json

import httpx
import pytest

from tests.server.live import ENDPOINT
from tests.server.storage_api import Api, initiate


@pytest.mark.parametrize("header", ["X-Fal-Object-Lifecycle", "X-Fal-Object-Lifecycle-Preference"])
async def test_a_header_sets_lifetime_and_rules(api: Api, header: str) -> None:
    acl = {"default": "hide", "rules": [{"user": api.other.key.id, "decision": "allow"}]}
    value = json.dumps({"expiration_duration_seconds": 3600, "initial_acl": acl})
    urls = await initiate(api, headers={header: value})
    await api.client.put(urls["upload_url"], content=b"1")
    posted = await api.client.post("/files/upload", content=b"1", headers=api.auth() | {header: value})
    for url in (urls["file_url"], posted.json()["access_url"]):
        file = await api.file(url)
        assert file is not None
        assert file.expires_at is not None
        assert file.expires_at - file.created == pytest.approx(3600, abs=1)
        assert file.acl == acl


async def test_a_lifetime_of_0_means_no_limit(api: Api) -> None:
    urls = await initiate(api, headers={"X-Fal-Object-Lifecycle": '{"expiration_duration_seconds": 0}'})
    await api.client.put(urls["upload_url"], content=b"1")
    file = await api.file(urls["file_url"])
    assert file is not None
    assert file.expires_at is None


@pytest.mark.parametrize(
    "value",
    [
        "{",
        "[]",
        '{"expiration_duration_seconds": -1}',
        '{"expiration_duration_seconds": 1e999}',
        '{"initial_acl": {"default": "hidden"}}',
        '{"initial_acl": {"rules": [{"user": "x"}]}}',
    ],
)
async def test_an_invalid_header_of_an_upload_is_refused(api: Api, value: str) -> None:
    answer = await api.client.post(
        "/storage/upload/initiate", json={}, headers=api.auth() | {"X-Fal-Object-Lifecycle": value}
    )
    assert answer.status_code == 400
    assert answer.json()["error_type"] == "bad_request"


def test_an_invalid_header_of_a_submit_is_refused(http: httpx.Client) -> None:
    headers = {"X-Fal-Object-Lifecycle-Preference": '{"initial_acl": {"default": "maybe"}}'}
    answer = http.post(f"/queue/{ENDPOINT}", json={"prompt": "a fox"}, headers=headers)
    assert (answer.status_code, answer.json()["error_type"]) == (400, "bad_request")
