"""Files behind signed links: ranges, headers, expiry and access rules."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore.store import S3Store

from keyreel.files.objects import Objects, ObjectStoreError, Stat
from keyreel.files.presigned import open_presigner
from keyreel.server.routes.files import READS, ByteRange, parse_range
from tests.server.storage_api import Api

CONTENT = b"0123456789"


class BrokenObjects(Objects):
    """A store that goes away after it has told the size of a file."""

    async def stream(
        self, path: str, start: int = 0, end: int | None = None, version: Stat | None = None
    ) -> AsyncIterator[bytes]:
        async for _ in super().stream(path, start, end, version):
            raise ObjectStoreError("unreachable")
        yield b""


class ReplacedObjects(Objects):
    """An upload replaces each object as soon as its size is known, `left` times."""

    left = 0

    async def stat(self, path: str) -> Stat | None:
        found = await super().stat(path)
        if self.left:
            ReplacedObjects.left -= 1
            await self.put(path, b"x" * (20 + self.left))
        return found


async def test_a_file_that_an_upload_replaces_is_read_again(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    url = await api.add(CONTENT)
    api.app.state.services = replace(api.services, objects=ReplacedObjects(api.services.objects.store))
    monkeypatch.setattr(ReplacedObjects, "left", READS - 1)
    answer = await api.client.get(url)
    assert (answer.status_code, answer.content) == (200, b"x" * 20)
    monkeypatch.setattr(ReplacedObjects, "left", READS)
    answer = await api.client.get(url, headers={"Range": "bytes=2-4"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=2-4"}])
async def test_a_file_that_cannot_be_read_is_answered_with_503(api: Api, headers: dict[str, str]) -> None:
    url = await api.add(CONTENT)
    broken = BrokenObjects(api.services.objects.store)
    api.app.state.services = replace(api.services, objects=broken)
    answer = await api.client.get(url, headers=headers)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]


async def test_a_link_needs_no_key(api: Api) -> None:
    answer = await api.client.get(await api.add(CONTENT))
    assert answer.status_code == 200
    assert answer.content == CONTENT
    assert answer.headers["Content-Type"] == "video/mp4"
    assert answer.headers["Content-Length"] == "10"
    assert answer.headers["Content-Disposition"] == "inline; filename*=utf-8''cat.mp4"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


async def test_head_has_the_headers_of_get_and_no_content(api: Api) -> None:
    url = await api.add(CONTENT)
    got, head = await api.client.get(url), await api.client.head(url, headers={"Range": "bytes=0-1"})
    assert head.status_code == 200
    assert head.content == b""
    differ = {"x-fal-request-id"}
    assert {k: v for k, v in head.headers.items() if k not in differ} == {
        k: v for k, v in got.headers.items() if k not in differ
    }


@pytest.mark.parametrize(
    ("asked", "content", "content_range"),
    [
        ("bytes=0-0", b"0", "bytes 0-0/10"),
        ("bytes=2-4", b"234", "bytes 2-4/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=7-99", b"789", "bytes 7-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=-99", CONTENT, "bytes 0-9/10"),
        ("bytes= 0-", CONTENT, "bytes 0-9/10"),
    ],
)
async def test_a_range_is_answered_with_206(api: Api, asked: str, content: bytes, content_range: str) -> None:
    answer = await api.client.get(await api.add(CONTENT), headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.content == content
    assert answer.headers["Content-Range"] == content_range
    assert answer.headers["Content-Length"] == str(len(content))


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99-100"])
async def test_a_range_outside_the_file_is_answered_with_416(api: Api, asked: str) -> None:
    answer = await api.client.get(await api.add(CONTENT), headers={"Range": asked})
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == "bytes */10"
    assert answer.content == b""


@pytest.mark.parametrize(
    "asked",
    ["", "bytes", "bytes=", "bytes=-", "bytes=5-2", "bytes=0-1,3-4", "items=0-1", "bytes=a-b", "bytes=" + "9" * 5000],
)
async def test_an_unsupported_range_is_ignored(api: Api, asked: str) -> None:
    answer = await api.client.get(await api.add(CONTENT), headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, CONTENT)


@given(st.integers(1, 50), st.integers(0, 60), st.integers(0, 60))
def test_a_range_is_a_slice(size: int, first: int, last: int) -> None:
    numbers = list(range(size))
    span = parse_range(f"bytes={first}-{last}", size)
    if last < first:
        assert span is None
    else:
        assert span is not None
        assert numbers[span.start : span.end] == numbers[first : last + 1]
        assert span.size == len(numbers[first : last + 1])
    assert parse_range(f"bytes=-{last}", size) == ByteRange(max(0, size - last), size)


async def test_a_range_of_another_version_gets_the_whole_file(api: Api) -> None:
    url = await api.add(CONTENT)
    etag = (await api.client.head(url)).headers["ETag"]
    same = await api.client.get(url, headers={"Range": "bytes=0-1", "If-Range": etag})
    other = await api.client.get(url, headers={"Range": "bytes=0-1", "If-Range": '"other"'})
    assert (same.status_code, same.content) == (206, b"01")
    assert (other.status_code, other.content) == (200, CONTENT)


async def test_an_unchanged_file_is_not_sent_again(api: Api) -> None:
    url = await api.add(CONTENT)
    etag = (await api.client.get(url)).headers["ETag"]
    answer = await api.client.get(url, headers={"If-None-Match": f'"other", {etag}'})
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["ETag"] == etag
    assert (await api.client.get(url, headers={"If-None-Match": '"other"'})).status_code == 200


async def test_a_range_of_a_large_file(api: Api) -> None:
    content = b"".join(number.to_bytes(4, "big") for number in range(700_000))
    url = await api.add(content)
    answer = await api.client.get(url, headers={"Range": "bytes=1000000-2200000"})
    assert answer.content == content[1_000_000:2_200_001]
    assert (await api.client.get(url)).content == content


async def test_an_empty_file_has_no_ranges(api: Api) -> None:
    url = await api.add(b"")
    assert (await api.client.get(url)).content == b""
    assert (await api.client.get(url, headers={"Range": "bytes=0-"})).status_code == 416


@pytest.mark.parametrize(
    ("content_type", "sandboxed"),
    [
        ("video/mp4", False),
        ("image/png", False),
        ("audio/wav", False),
        ("image/svg+xml", True),
        ("text/html", True),
        ("application/octet-stream", True),
    ],
)
async def test_content_that_a_browser_could_run_is_sandboxed(api: Api, content_type: str, sandboxed: bool) -> None:
    answer = await api.client.get(await api.add(b"<script>", content_type=content_type))
    assert answer.headers["Content-Type"] == content_type
    assert (answer.headers.get("Content-Security-Policy") == "sandbox; default-src 'none'") is sandboxed


async def test_a_name_may_contain_any_letters(api: Api) -> None:
    url = await api.add(CONTENT, name="Übung.mp4")
    assert url.endswith("/%C3%9Cbung.mp4")
    answer = await api.client.get(url)
    assert answer.headers["Content-Disposition"] == "inline; filename*=utf-8''%C3%9Cbung.mp4"


async def test_unsigned_links_are_answered_with_404(api: Api) -> None:
    url = await api.add(CONTENT)
    token = url.split("/")[4]
    for wrong in ("x", token[:-1], token[1:], "A" * len(token)):
        assert (await api.client.get(url.replace(token, wrong))).status_code == 404
    for path in ("/files/%2e%2e/keyreel.db", "/files/a/b", "/files/links.key/x"):
        assert (await api.client.get(path)).status_code == 404


async def test_an_expired_file_is_answered_with_410(api: Api) -> None:
    assert (await api.client.get(await api.add(CONTENT, lifetime=-1.0))).status_code == 410
    assert (await api.client.get(await api.add(CONTENT, lifetime=60.0))).status_code == 200


async def test_a_file_without_content_is_answered_with_404(api: Api) -> None:
    url = await api.add(CONTENT)
    await api.services.objects.delete("a/b")
    assert (await api.client.get(url)).status_code == 404


@pytest.mark.parametrize(("decision", "code"), [("allow", 200), ("forbid", 403), ("hide", 404)])
async def test_the_default_rule_is_for_everyone_but_the_owner(api: Api, decision: str, code: int) -> None:
    url = await api.add(CONTENT, acl={"default": decision})
    assert (await api.client.get(url)).status_code == code
    assert (await api.client.get(url, headers=api.auth(api.other))).status_code == code
    assert (await api.client.get(url, headers={"Authorization": "Key wrong"})).status_code == code
    assert (await api.client.get(url, headers=api.auth())).status_code == 200


async def test_a_rule_is_for_one_key(api: Api) -> None:
    rules = [{"user": api.other.key.id, "decision": "allow"}]
    url = await api.add(CONTENT, acl={"default": "hide", "rules": rules})
    assert (await api.client.get(url)).status_code == 404
    assert (await api.client.get(url, headers=api.auth(api.other))).status_code == 200


async def test_a_hidden_file_is_answered_like_an_unknown_one(api: Api) -> None:
    hidden = await api.client.get(await api.add(CONTENT, acl={"default": "hide"}))
    unknown = await api.client.get("/files/unknown/cat.mp4")
    assert hidden.json() == unknown.json()


@pytest.fixture
async def redirecting(api: Api) -> Api:
    """The API with links into a bucket, which no test opens: the files are in a folder."""
    store = S3Store("films", access_key_id="key", secret_access_key="secret", region="eu-central-1")  # noqa: S106
    presigner = await open_presigner(Objects(store), 600)
    api.services = api.app.state.services = replace(api.services, presigner=presigner)
    return api


async def test_media_are_redirected_to_the_bucket(redirecting: Api) -> None:
    answer = await redirecting.client.get(await redirecting.add(CONTENT), headers={"Range": "bytes=2-4"})
    assert answer.status_code == 307
    assert answer.headers["Location"].startswith("https://s3.eu-central-1.amazonaws.com/films/a/b?")
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


async def test_what_the_bucket_cannot_answer_is_answered_here(redirecting: Api) -> None:
    api, url = redirecting, await redirecting.add(CONTENT)
    head = await api.client.head(url)
    assert (head.status_code, head.headers["Content-Length"]) == (200, "10")
    assert (await api.client.get(url, headers={"If-None-Match": head.headers["ETag"]})).status_code == 304
    opened = await api.client.get(url, headers={"Sec-Fetch-Mode": "navigate"})
    assert opened.content == CONTENT
    assert "cat.mp4" in opened.headers["Content-Disposition"]
    program = await api.client.get(await api.add(b"<script>", content_type="text/html", name="page.html"))
    assert (program.content, program.headers["X-Content-Type-Options"]) == (b"<script>", "nosniff")


async def test_rules_and_expiry_come_before_the_redirect(redirecting: Api) -> None:
    hidden = await redirecting.add(CONTENT, acl={"default": "hide"})
    assert (await redirecting.client.get(hidden)).status_code == 404
    assert (await redirecting.client.get(hidden, headers=redirecting.auth())).status_code == 307
    assert (await redirecting.client.get(await redirecting.add(CONTENT, lifetime=-1))).status_code == 410
