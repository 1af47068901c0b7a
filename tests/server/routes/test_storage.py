"""Uploads by signed URL and by token, temporary tokens, and the uploads of fal's Python client."""

import json
import subprocess
import sys
from datetime import UTC, datetime

import httpx
import pytest

from tests.server.fal_uploads import LARGE
from tests.server.live import LiveServer
from tests.server.storage_api import URL, Api, initiate, upload_token


@pytest.fixture(scope="module")
def uploaded(server: LiveServer) -> dict[str, str]:
    """The URLs of files that fal's Python client has uploaded. The keys name the kind of upload."""
    command = [sys.executable, "-m", "tests.server.fal_uploads", server.url, server.credentials]
    program = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60)
    urls: dict[str, str] = json.loads(program.stdout)
    return urls


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

    async def test_a_file_is_answered_with_404_before_its_upload(self, api: Api) -> None:
        urls = await initiate(api)
        assert (await api.client.get(urls["file_url"])).status_code == 404

    async def test_an_upload_can_be_repeated(self, api: Api) -> None:
        urls = await initiate(api)
        for _ in range(2):
            assert (await api.client.put(urls["upload_url"], content=b"a cat")).status_code == 200
        assert (await api.client.get(urls["file_url"])).content == b"a cat"

    async def test_uploads_and_tokens_need_a_key(self, api: Api) -> None:
        assert (await api.client.post("/storage/upload/initiate", json={})).status_code == 401
        assert (await api.client.post("/storage/auth/token", json={})).status_code == 401
        assert (await api.client.post("/tokens", json={})).status_code == 401

    async def test_a_url_of_a_revoked_key_is_refused(self, api: Api) -> None:
        urls = await initiate(api)
        await api.services.store.keys.revoke(api.key.key.id)
        api.services.keyring.forget()
        assert (await api.client.put(urls["upload_url"], content=b"a cat")).status_code == 403

    async def test_a_changed_or_expired_url_is_refused(self, api: Api) -> None:
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

    async def test_parts_need_the_signature(self, api: Api) -> None:
        urls = await initiate(api, "initiate-multipart")
        path = urls["upload_url"].partition("?")[0]
        assert (await api.client.put(f"{path}/1", content=b"1")).status_code == 403
        assert (await api.client.post(f"{path}/complete", json={"parts": []})).status_code in (403, 422)


class TestUploadTokens:
    async def test_upload(self, api: Api) -> None:
        headers = {"Content-Type": "image/png", "X-Fal-File-Name": "cat.png"}
        answer = await api.client.post("/files/upload", content=b"a cat", headers=headers | await upload_token(api))
        got = await api.client.get(answer.json()["access_url"])
        assert got.content == b"a cat"
        assert got.headers["Content-Type"] == "image/png"

    async def test_the_key_works_in_place_of_a_token(self, api: Api) -> None:
        assert (await api.client.post("/files/upload", content=b"a cat", headers=api.auth())).status_code == 200

    async def test_the_token_response_has_the_fields_of_fals_client(self, api: Api) -> None:
        answer = (await api.client.post("/storage/auth/token", json={}, headers=api.auth())).json()
        assert answer["base_url"] == URL
        expires = datetime.fromisoformat(answer["expires_at"])
        assert expires.tzinfo is not None
        assert 3500 < (expires - datetime.now(UTC)).total_seconds() <= 3600

    async def test_wrong_and_revoked_tokens_are_refused(self, api: Api) -> None:
        token = await upload_token(api)
        temporary = (await api.client.post("/tokens", json={}, headers=api.auth())).json()
        for wrong in ({}, {"Authorization": "Bearer x"}, {"Authorization": f"Bearer {temporary}"}):
            assert (await api.client.post("/files/upload", content=b"1", headers=wrong)).status_code == 401
        await api.services.store.keys.revoke(api.key.key.id)
        api.services.keyring.forget()
        assert (await api.client.post("/files/upload", content=b"1", headers=token)).status_code == 401

    async def test_an_expired_token_is_refused(self, api: Api) -> None:
        token = await upload_token(api)
        api.later(3601)
        assert (await api.client.post("/files/upload", content=b"1", headers=token)).status_code == 401

    async def test_only_the_key_that_began_an_upload_may_send_parts(self, api: Api) -> None:
        begun = (await api.client.post("/files/upload/multipart", headers=await upload_token(api))).json()
        url = f"{begun['access_url']}/multipart/{begun['uploadId']}"
        assert (await api.client.put(f"{url}/1", content=b"1", headers=api.auth(api.other))).status_code == 403
        assert (await api.client.put(f"{url}/1", content=b"1")).status_code == 401
        assert (await api.client.put(f"{url}x/1", content=b"1", headers=api.auth())).status_code == 404
        assert (await api.client.put(f"{url}/1", content=b"1", headers=api.auth())).status_code == 200


class TestTemporaryTokens:
    @pytest.mark.parametrize("path", ["/tokens", "/tokens/", "/tokens/realtime"])
    @pytest.mark.parametrize("field", ["token_expiration", "duration"])
    async def test_the_response_is_a_json_string(self, api: Api, path: str, field: str) -> None:
        answer = await api.client.post(path, json={"allowed_apps": ["ltx-video-lora"], field: 60}, headers=api.auth())
        assert answer.headers["Content-Type"] == "application/json"
        claims = api.services.links.verify_token(answer.json())
        assert claims is not None
        assert (claims.key_id, claims.apps) == (api.key.key.id, ("ltx-video-lora",))
        api.later(61)
        assert api.services.links.verify_token(answer.json()) is None

    @pytest.mark.parametrize("seconds", [0, -1, 86_401, "x"])
    async def test_an_invalid_lifetime_is_refused(self, api: Api, seconds: object) -> None:
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

    def test_file_names_are_kept(self, uploaded: dict[str, str]) -> None:
        assert uploaded["content"].endswith("/cat.png")
        assert uploaded["file"].endswith("/my_cat.png")

    def test_a_hidden_file_needs_its_key(self, uploaded: dict[str, str], server: LiveServer) -> None:
        assert httpx.get(uploaded["hidden"]).status_code == 404
        assert httpx.get(uploaded["hidden"], headers=server.headers).content == b"a cat"
