"""The routes that manage keys, what their limits answer, and what keys have used."""

import csv
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from keyreel.store.records import Limits
from tests.server.live import APP, ENDPOINT, LiveServer
from tests.server.queue_api import finish, hold, submit
from tests.server.storage_api import Api, initiate, part_url


def test_only_administrators_manage_keys(http: httpx.Client, server: LiveServer) -> None:
    assert http.get("/keys").status_code == 403
    assert http.post("/keys", json={"name": "more", "admin": True}).status_code == 403
    made = http.post("/keys", json={"name": "more"}, headers=server.admin_headers)
    assert made.status_code == 201
    key = made.json()
    assert http.get(
        f"/{APP}/requests/x/status", headers={"Authorization": f"Key {key['id']}:{key['secret']}"}
    ).json() == {"status": "NOT_FOUND"}
    listed = http.get("/keys", headers=server.admin_headers).json()
    assert key["secret"] not in json.dumps(listed)
    assert {each["name"] for each in listed} >= {"admin", "user", "more"}
    assert http.delete(f"/keys/{key['id']}", headers=server.admin_headers).json() == {"id": key["id"]}
    assert http.delete(f"/keys/{key['id']}", headers=server.admin_headers).status_code == 404
    assert http.post("/keys", json={"name": ""}, headers=server.admin_headers).status_code == 422


@contextmanager
def user(server: LiveServer, **fields: Any) -> Iterator[tuple[str, httpx.Client]]:
    """Yields the id of a new key and a client that uses it."""
    made = httpx.post(
        f"{server.url}/keys", json={"name": "new", **fields}, headers=server.admin_headers, trust_env=False
    ).json()
    headers = {"Authorization": f"Key {made['id']}:{made['secret']}"}
    with httpx.Client(base_url=server.url, headers=headers, trust_env=False) as http:
        yield made["id"], http


def test_limits_are_set_at_the_start_and_replaced_later(http: httpx.Client, server: LiveServer) -> None:
    limits = {"max_requests": 4, "max_queued": 3, "max_running": 2, "max_per_minute": 60, "max_bytes": 10**12}
    limits["max_upload_bytes"] = 10**9
    with user(server, **limits) as (key_id, _):
        listed = http.get("/keys", headers=server.admin_headers).json()
    assert [limits | key == key for key in listed if key["id"] == key_id] == [True]
    assert http.put(f"/keys/{key_id}/limits", json={"max_queued": 1}).status_code == 403
    replaced = http.put(f"/keys/{key_id}/limits", json={"max_queued": 1}, headers=server.admin_headers)
    assert replaced.json() == dict.fromkeys(limits) | {"max_queued": 1}
    for path, body, code in ((f"/keys/{key_id}", {"max_bytes": 0}, 422), ("/keys/nobody", {}, 404)):
        assert http.put(f"{path}/limits", json=body, headers=server.admin_headers).status_code == code


@pytest.mark.parametrize("limit", [{"max_requests": 2**31}, {"max_running": 0}, {"max_bytes": 2**63}])
def test_limits_that_the_database_cannot_hold_are_refused(server: LiveServer, limit: dict[str, int]) -> None:
    headers = server.admin_headers
    made = httpx.post(f"{server.url}/keys", json={"name": "a", **limit}, headers=headers, trust_env=False)
    changed = httpx.put(f"{server.url}/keys/a/limits", json=limit, headers=headers, trust_env=False)
    assert (made.status_code, changed.status_code) == (422, 422)


def test_a_key_over_its_rate_is_told_when_to_try_again(server: LiveServer) -> None:
    with user(server, max_per_minute=1) as (_, http):
        finish(http, submit(http, "a fox"))
        refused = http.post(f"/queue/{ENDPOINT}", json={"prompt": "a fox"})
    wait = int(refused.headers["Retry-After"])
    assert (refused.status_code, 0 < wait <= 60) == (429, True)
    assert refused.json() == {"detail": f"This key may submit no more than 1 requests a minute. Try again in {wait} s."}


def test_a_key_over_its_limit_of_requests_is_refused(server: LiveServer) -> None:
    with user(server, max_queued=1, max_running=1) as (_, http):
        running, waiting = hold(http), submit(http, "a fox")
        refused = http.post(f"/queue/{ENDPOINT}", json={"prompt": "a fox"})
        server.release()
        finish(http, running)
        finish(http, waiting)
    assert (refused.status_code, "Retry-After" in refused.headers) == (429, False)
    assert "no more than 1 requests waiting" in refused.json()["detail"]


def test_users_see_their_own_use_and_administrators_everyones(http: httpx.Client, server: LiveServer) -> None:
    with user(server, name="studio") as (key_id, own):
        finish(own, submit(own, "a fox"))
        (day,) = own.get(f"/keys/{key_id}/usage").json()["days"]
    assert day | {"name": "studio", "completed": 1, "failed": 0, "cancelled": 0} == day
    assert day["day"] == datetime.now(UTC).date().isoformat()
    for path in (f"/keys/{key_id}/usage", f"/keys/{key_id}/usage.csv", "/keys/usage", "/keys/usage.csv"):
        assert http.get(path).status_code == 403
    everyones = http.get("/keys/usage", headers=server.admin_headers).json()
    assert day in everyones["days"]
    assert http.get(f"/keys/{key_id}/usage", headers=server.admin_headers).json()["days"] == [day]


def test_usage_can_be_had_as_csv_that_no_spreadsheet_runs(http: httpx.Client, server: LiveServer) -> None:
    formula = '=HYPERLINK("http://example.com")'
    with user(server, name=formula) as (key_id, own):
        finish(own, submit(own, "a fox"))
        answer = own.get(f"/keys/{key_id}/usage.csv")
    assert answer.headers["content-type"].startswith("text/csv")
    (row,) = csv.DictReader(answer.text.splitlines())
    assert (row["name"], row["key_id"], row["completed"]) == (f"'{formula}", key_id, "1")
    assert key_id in http.get("/keys/usage.csv", headers=server.admin_headers).text


def test_usage_is_limited_to_the_days_asked_for(server: LiveServer) -> None:
    today = datetime.now(UTC).date()
    with user(server) as (key_id, own):
        finish(own, submit(own, "a fox"))
        for since, until, days in ((today, today, 1), (today - timedelta(9), today - timedelta(1), 0)):
            answer = own.get(f"/keys/{key_id}/usage", params={"since": str(since), "until": str(until)})
            assert len(answer.json()["days"]) == days
        assert own.get(f"/keys/{key_id}/usage", params={"since": "yesterday"}).status_code == 422


def test_users_see_their_own_quotas_and_administrators_everyones(http: httpx.Client, server: LiveServer) -> None:
    with user(server, max_running=3) as (key_id, own):
        finish(own, submit(own, "a fox"))
        quotas = own.get(f"/keys/{key_id}/limits").json()
        assert own.get(f"/keys/{server.user.key.id}/limits").status_code == 403
    assert quotas["max_running"] == {"limit": 3, "used": 0}
    assert quotas["max_queued"] == {"limit": server.services.settings.default_max_queued, "used": 0}
    assert quotas["max_requests"] == {"limit": None, "used": 0}
    assert quotas["max_per_minute"]["used"] <= 1
    assert http.get("/keys/limits").status_code == 403
    everyones = http.get("/keys/limits", headers=server.admin_headers).json()
    assert everyones[key_id]["max_running"] == quotas["max_running"]
    assert {each["limit"] for each in everyones[server.admin.key.id].values()} == {None}
    assert http.get("/keys/nobody/limits", headers=server.admin_headers).status_code == 404


class TestUploads:
    @pytest.fixture
    async def limited(self, api: Api) -> Api:
        """The key may upload 10 bytes a day, and has uploaded 6."""
        await api.services.store.keys.set_limits(api.key.key.id, Limits(max_upload_bytes=10))
        urls = await initiate(api)
        assert (await api.client.put(urls["upload_url"], content=b"6bytes")).status_code == 200
        return api

    @pytest.mark.parametrize(("content", "code"), [(b"5byte", 429), (b"eleven byte", 413)])
    async def test_an_upload_over_the_days_is_refused(self, limited: Api, content: bytes, code: int) -> None:
        urls = await initiate(limited)
        refused = await limited.client.put(urls["upload_url"], content=content)
        assert refused.status_code == code
        assert ("Retry-After" in refused.headers) == (code == 429)
        assert "10 bytes a day" in refused.json()["detail"]
        assert await limited.file(urls["file_url"]) is None

    async def test_it_is_refused_before_it_is_sent(self, limited: Api) -> None:
        async def nothing() -> AsyncIterator[bytes]:
            raise AssertionError("the content was read")
            yield b""  # type: ignore[unreachable] # makes this a generator

        urls = await initiate(limited)
        headers = {"Content-Length": "5"}
        assert (await limited.client.put(urls["upload_url"], content=nothing(), headers=headers)).status_code == 429

    async def test_data_uris_count(self, limited: Api) -> None:
        images = {"prompt": "a fox", "images": [{"image_url": "data:image/png;base64,c2l4IGJ5dGU="}]}
        refused = await limited.client.post(f"/queue/{ENDPOINT}", json=images, headers=limited.auth())
        assert (refused.status_code, 0 < int(refused.headers["Retry-After"]) <= 86_400) == (429, True)


class TestStorage:
    @pytest.fixture
    async def full(self, api: Api) -> Api:
        """The key may store 10 bytes, and stores 6."""
        await api.services.store.keys.set_limits(api.key.key.id, Limits(max_bytes=10))
        urls = await initiate(api)
        assert (await api.client.put(urls["upload_url"], content=b"6bytes")).status_code == 200
        return api

    async def test_an_upload_that_does_not_fit_is_refused_and_deleted(self, full: Api) -> None:
        urls = await initiate(full)
        refused = await full.client.put(urls["upload_url"], content=b"5byte")
        assert refused.status_code == 403
        assert "may store 10 bytes and stores 6; the new file has 5" in refused.json()["detail"]
        assert await full.file(urls["file_url"]) is None
        assert (await full.client.put(urls["upload_url"], content=b"5byte")).status_code == 410
        urls = await initiate(full)
        assert (await full.client.put(urls["upload_url"], content=b"4byt")).status_code == 200

    async def test_parts_that_do_not_fit_together_are_refused_and_deleted(self, full: Api) -> None:
        urls = await initiate(full, "initiate-multipart")
        parts = [(await full.client.put(part_url(urls["upload_url"], n), content=b"3by")).json() for n in (1, 2)]
        refused = await full.client.post(part_url(urls["upload_url"], "complete"), json={"parts": parts})
        assert refused.status_code == 403
        assert await full.file(urls["file_url"]) is None

    async def test_a_full_key_can_neither_begin_an_upload_nor_submit(self, full: Api) -> None:
        urls = await initiate(full)
        await full.client.put(urls["upload_url"], content=b"4byt")
        for path in ("/storage/upload/initiate", f"/queue/{ENDPOINT}"):
            refused = await full.client.post(path, json={"prompt": "a fox"}, headers=full.auth())
            assert refused.status_code == 403
            assert "stores 10. Delete requests" in refused.json()["detail"]
        assert (await full.client.post("/storage/upload/initiate", json={}, headers=full.auth(full.other))).is_success
        stored = (await full.client.get(f"/keys/{full.key.key.id}/usage", headers=full.auth())).json()
        assert stored["stored_bytes"] == {full.key.key.id: 10}
