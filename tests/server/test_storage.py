import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.fal_uploads import LARGE, PART
from tests.server.live import LiveServer, live_server
from tests.server.storage_api import URL, Api, open_api
from tests.test_objects import disk_with_room_for, files_in

KIB = 1024


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    limits = dict.fromkeys(("max_image_bytes", "max_video_bytes", "max_lora_bytes"), 128 * KIB)
    async with open_api(tmp_path, **limits) as api:
        yield api


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(tmp_path_factory.mktemp("live")) as server:
        yield server


@pytest.fixture(scope="module")
def uploaded(live: LiveServer) -> dict[str, str]:
    """The URLs that fal's Python client got for its uploads."""
    command = [sys.executable, "-m", "tests.server.fal_uploads", live.url, live.credentials]
    program = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60)
    urls: dict[str, str] = json.loads(program.stdout)
    return urls


async def initiate(api: Api, kind: str = "initiate", headers: dict[str, str] | None = None, **body: Any) -> Any:
    answer = await api.client.post(
        f"/storage/upload/{kind}?storage_type=fal-cdn-v3",
        json={"content_type": "image/png", "file_name": "cat.png", **body},
        headers=api.auth() | (headers or {}),
    )
    assert answer.status_code == 200
    return answer.json()


async def upload_token(api: Api) -> dict[str, str]:
    answer = await api.client.post("/storage/auth/token?storage_type=fal-cdn-v3", json={}, headers=api.auth())
    return {"Authorization": f"{answer.json()['token_type']} {answer.json()['token']}"}


def part_url(upload_url: str, part: int | str) -> str:
    """As fal's JavaScript client builds it."""
    path, _, query = upload_url.partition("?")
    return f"{path}/{part}?{query}"


async def put_parts(api: Api, upload_url: str, contents: dict[int, bytes]) -> list[Any]:
    """All at once."""
    puts = [api.client.put(part_url(upload_url, number), content=content) for number, content in contents.items()]
    return [answer.json() for answer in await asyncio.gather(*puts)]


def split(content: bytes) -> dict[int, bytes]:
    starts = range(0, len(content), PART)
    return {number: content[start : start + PART] for number, start in enumerate(starts, start=1)}


class TestSignedUrls:
    async def test_upload(self, api: Api) -> None:
        urls = await initiate(api)
        put = await api.client.put(urls["upload_url"], content=b"a cat", headers={"Content-Type": "image/png"})
        assert put.status_code == 200
        got = await api.client.get(urls["file_url"])
        assert got.content == b"a cat"
        assert got.headers["Content-Type"] == "image/png"
        assert urls["file_url"].endswith("/cat.png")
        file = await api.file(urls["file_url"])
        assert file is not None
        assert (file.size, file.key_id, file.expires_at, file.acl) == (5, api.key.key.id, None, None)

    async def test_urls_are_absolute(self, api: Api) -> None:
        urls = await initiate(api)
        assert all(url.startswith(f"{URL}/") for url in urls.values())

    async def test_a_file_is_not_there_before_it_is_uploaded(self, api: Api) -> None:
        urls = await initiate(api)
        assert (await api.client.get(urls["file_url"])).status_code == 404

    async def test_the_same_upload_twice(self, api: Api) -> None:
        urls = await initiate(api)
        for _ in range(2):
            assert (await api.client.put(urls["upload_url"], content=b"a cat")).status_code == 200
        assert (await api.client.get(urls["file_url"])).content == b"a cat"

    async def test_a_key_is_needed_to_begin(self, api: Api) -> None:
        assert (await api.client.post("/storage/upload/initiate", json={})).status_code == 401
        assert (await api.client.post("/storage/auth/token", json={})).status_code == 401
        assert (await api.client.post("/tokens", json={})).status_code == 401

    async def test_a_url_that_was_changed_or_is_too_old(self, api: Api) -> None:
        urls, other = await initiate(api), await initiate(api)
        upload_url = httpx.URL(urls["upload_url"])
        for wrong in (
            upload_url.copy_remove_param("signature"),
            upload_url.copy_set_param("signature", "0" * 64),
            upload_url.copy_set_param("expires", "99999999999"),
            httpx.URL(other["upload_url"]).copy_with(query=upload_url.query),
        ):
            assert (await api.client.put(wrong, content=b"1")).status_code == 403
        api.later(3601)
        assert (await api.client.put(upload_url, content=b"1")).status_code == 403
        assert (await api.client.get(urls["file_url"])).status_code == 404

    async def test_names_and_types_are_made_safe(self, api: Api) -> None:
        urls = await initiate(api, file_name='../../evil".html\r\n', content_type="text/html; charset=x\r\nX: y")
        assert urls["file_url"].endswith("/evil_.html")
        await api.client.put(urls["upload_url"], content=b"1")
        got = await api.client.get(urls["file_url"])
        assert got.headers["Content-Type"] == "text/html"
        assert "X" not in got.headers
        nonsense = await initiate(api, content_type="nonsense")
        await api.client.put(nonsense["upload_url"], content=b"1")
        assert (await api.client.get(nonsense["file_url"])).headers["Content-Type"] == "application/octet-stream"


class TestParts:
    async def test_parts_in_any_order(self, api: Api) -> None:
        content = LARGE[: 5 * PART + 7]
        urls = await initiate(api, "initiate-multipart")
        contents = split(content)
        answers = await put_parts(api, urls["upload_url"], {number: contents[number] for number in (4, 2, 6, 1, 5, 3)})
        assert {answer["partNumber"] for answer in answers} == set(contents)
        done = await api.client.post(part_url(urls["upload_url"], "complete"), json={"parts": answers})
        assert done.status_code == 200
        assert (await api.client.get(urls["file_url"])).content == content
        file = await api.file(urls["file_url"])
        assert file is not None
        assert file.size == len(content)
        assert await api.services.objects.folder_size("parts") == 0

    async def test_completing_again_changes_nothing(self, api: Api) -> None:
        urls = await initiate(api, "initiate-multipart")
        answers = await put_parts(api, urls["upload_url"], {1: b"one", 2: b"two"})
        for _ in range(2):
            done = await api.client.post(part_url(urls["upload_url"], "complete"), json={"parts": answers})
            assert done.status_code == 200
        assert (await api.client.get(urls["file_url"])).content == b"onetwo"

    async def test_a_part_that_is_sent_again_replaces_the_first(self, api: Api) -> None:
        urls = await initiate(api, "initiate-multipart")
        [first] = await put_parts(api, urls["upload_url"], {1: b"first"})
        [second] = await put_parts(api, urls["upload_url"], {1: b"second, and longer"})
        complete = part_url(urls["upload_url"], "complete")
        assert (await api.client.post(complete, json={"parts": [first]})).status_code == 400
        assert (await api.client.post(complete, json={"parts": [second]})).status_code == 200
        assert (await api.client.get(urls["file_url"])).content == b"second, and longer"

    @pytest.mark.parametrize(
        ("parts", "code"), [([], 422), ([{"partNumber": 2, "etag": "x"}], 400), ([{"partNumber": 0, "etag": "x"}], 422)]
    )
    async def test_parts_that_nobody_sent(self, api: Api, parts: list[Any], code: int) -> None:
        urls = await initiate(api, "initiate-multipart")
        await put_parts(api, urls["upload_url"], {1: b"one"})
        done = await api.client.post(part_url(urls["upload_url"], "complete"), json={"parts": parts})
        assert done.status_code == code
        assert (await api.client.get(urls["file_url"])).status_code == 404

    async def test_parts_need_the_signature(self, api: Api) -> None:
        urls = await initiate(api, "initiate-multipart")
        path = urls["upload_url"].partition("?")[0]
        assert (await api.client.put(f"{path}/1", content=b"1")).status_code == 403
        assert (await api.client.post(f"{path}/complete", json={"parts": []})).status_code in (403, 422)


class TestLimits:
    async def test_a_file_that_says_that_it_is_too_large(self, api: Api, stored: Path) -> None:
        urls = await initiate(api)
        answer = await api.client.put(urls["upload_url"], content=bytes(129 * KIB))
        assert answer.status_code == 413
        assert files_in(stored) == []

    async def test_a_file_that_does_not_say_it(self, api: Api, stored: Path) -> None:
        async def unannounced() -> AsyncIterator[bytes]:
            for _ in range(9):
                yield bytes(16 * KIB)

        urls = await initiate(api)
        assert (await api.client.put(urls["upload_url"], content=unannounced())).status_code == 413
        answer = await api.client.post("/files/upload", content=unannounced(), headers=await upload_token(api))
        assert answer.status_code == 413
        assert files_in(stored) == []

    async def test_parts_that_are_too_large_together(self, api: Api) -> None:
        urls = await initiate(api, "initiate-multipart")
        codes = [
            (await api.client.put(part_url(urls["upload_url"], number), content=bytes(60 * KIB))).status_code
            for number in (1, 2, 3)
        ]
        assert codes == [200, 200, 413]
        again = await api.client.put(part_url(urls["upload_url"], 2), content=bytes(68 * KIB))
        assert again.status_code == 200

    async def test_an_upload_that_breaks_off_leaves_nothing(self, api: Api, stored: Path) -> None:
        """The server gets half of the body and then learns that the client has gone."""
        messages = [{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}]
        url = httpx.URL((await initiate(api))["upload_url"])

        async def receive() -> Any:
            return messages.pop(0)

        async def send(_message: Any) -> None:
            pass

        scope = {"type": "http", "method": "PUT", "path": url.path, "raw_path": url.raw_path.split(b"?")[0]}
        await api.app({**scope, "query_string": url.query, "headers": [], "http_version": "1.1"}, receive, send)
        assert messages == []
        assert files_in(stored) == []

    async def test_a_full_disk_is_not_hidden(self, api: Api, stored: Path) -> None:
        # Room enough for the rows, but not for the file.
        urls, token = await initiate(api), await upload_token(api)
        with disk_with_room_for(50 * KIB):
            put = await api.client.put(urls["upload_url"], content=bytes(100 * KIB))
        assert put.status_code >= 500
        assert files_in(stored) == []
        assert (await api.client.get(urls["file_url"])).status_code == 404
        assert (await api.client.post("/files/upload", content=b"1", headers=token)).status_code == 200


class TestUploadTokens:
    async def test_upload(self, api: Api) -> None:
        headers = {"Content-Type": "image/png", "X-Fal-File-Name": "cat.png"}
        answer = await api.client.post("/files/upload", content=b"a cat", headers=headers | await upload_token(api))
        got = await api.client.get(answer.json()["access_url"])
        assert got.content == b"a cat"
        assert got.headers["Content-Type"] == "image/png"

    async def test_the_key_itself_will_do(self, api: Api) -> None:
        assert (await api.client.post("/files/upload", content=b"a cat", headers=api.auth())).status_code == 200

    async def test_the_answer_is_what_fals_client_reads(self, api: Api) -> None:
        answer = (await api.client.post("/storage/auth/token", json={}, headers=api.auth())).json()
        assert answer["base_url"] == URL
        expires = datetime.fromisoformat(answer["expires_at"])
        assert expires.tzinfo is not None
        assert 3500 < (expires - datetime.now(UTC)).total_seconds() <= 3600

    async def test_wrong_old_and_revoked_tokens(self, api: Api) -> None:
        token = await upload_token(api)
        temporary = (await api.client.post("/tokens", json={}, headers=api.auth())).json()
        for wrong in ({}, {"Authorization": "Bearer x"}, {"Authorization": f"Bearer {temporary}"}):
            assert (await api.client.post("/files/upload", content=b"1", headers=wrong)).status_code == 401
        await api.services.store.keys.revoke(api.key.key.id)
        api.services.keyring.forget()
        assert (await api.client.post("/files/upload", content=b"1", headers=token)).status_code == 401

    async def test_an_expired_token(self, api: Api) -> None:
        token = await upload_token(api)
        api.later(3601)
        assert (await api.client.post("/files/upload", content=b"1", headers=token)).status_code == 401

    async def test_parts_are_for_who_began(self, api: Api) -> None:
        begun = (await api.client.post("/files/upload/multipart", headers=await upload_token(api))).json()
        url = f"{begun['access_url']}/multipart/{begun['uploadId']}"
        assert (await api.client.put(f"{url}/1", content=b"1", headers=api.auth(api.other))).status_code == 403
        assert (await api.client.put(f"{url}/1", content=b"1")).status_code == 401
        assert (await api.client.put(f"{url}x/1", content=b"1", headers=api.auth())).status_code == 404
        assert (await api.client.put(f"{url}/1", content=b"1", headers=api.auth())).status_code == 200


class TestLifecycle:
    @pytest.mark.parametrize("header", ["X-Fal-Object-Lifecycle", "X-Fal-Object-Lifecycle-Preference"])
    async def test_lifetime_and_rules(self, api: Api, header: str) -> None:
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

    async def test_no_lifetime_is_for_ever(self, api: Api) -> None:
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
    async def test_what_cannot_be_read_is_refused(self, api: Api, value: str) -> None:
        answer = await api.client.post(
            "/storage/upload/initiate", json={}, headers=api.auth() | {"X-Fal-Object-Lifecycle": value}
        )
        assert answer.status_code == 400
        assert answer.json()["error_type"] == "bad_request"


class TestTemporaryTokens:
    @pytest.mark.parametrize("path", ["/tokens", "/tokens/", "/tokens/realtime"])
    @pytest.mark.parametrize("field", ["token_expiration", "duration"])
    async def test_a_token_is_a_json_string(self, api: Api, path: str, field: str) -> None:
        answer = await api.client.post(path, json={"allowed_apps": ["ltx-video-lora"], field: 60}, headers=api.auth())
        assert answer.headers["Content-Type"] == "application/json"
        claims = api.services.links.verify_token(answer.json())
        assert claims is not None
        assert (claims.key_id, claims.apps) == (api.key.key.id, ("ltx-video-lora",))
        api.later(61)
        assert api.services.links.verify_token(answer.json()) is None

    @pytest.mark.parametrize("seconds", [0, -1, 86_401, "x"])
    async def test_lifetimes_have_limits(self, api: Api, seconds: object) -> None:
        answer = await api.client.post("/tokens", json={"token_expiration": seconds}, headers=api.auth())
        assert answer.status_code == 422


class TestPythonClient:
    @pytest.mark.parametrize("way", ["content", "file", "repository of old", "asynchronous"])
    def test_uploads(self, uploaded: dict[str, str], way: str) -> None:
        got = httpx.get(uploaded[way])
        assert got.content == b"a cat"
        assert got.headers["Content-Type"] == "image/png"

    @pytest.mark.parametrize("way", ["content, in parts", "file, in parts", "asynchronous, in parts"])
    def test_uploads_in_parts(self, uploaded: dict[str, str], way: str) -> None:
        got = httpx.get(uploaded[way])
        assert got.content == LARGE
        assert got.headers["Content-Type"] == "video/mp4"

    def test_names(self, uploaded: dict[str, str]) -> None:
        assert uploaded["content"].endswith("/cat.png")
        assert uploaded["file"].endswith("/my_cat.png")

    def test_rules(self, uploaded: dict[str, str], live: LiveServer) -> None:
        assert httpx.get(uploaded["hidden"]).status_code == 404
        assert httpx.get(uploaded["hidden"], headers=live.headers).content == b"a cat"
