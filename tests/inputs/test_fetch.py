import asyncio
import base64
import hashlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from keyreel.errors import RequestError
from keyreel.inputs import fetch as fetch_module
from keyreel.inputs.fetch import Fetcher, _next_hop, parse_data_uri
from keyreel.net.addresses import AddressPolicy
from keyreel.video.job import InputFile
from tests.net.test_addresses import FixedResolver

LOC = ("images", 0, "image_url")
LIMIT = 100_000
CONTENT = b"content" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SECRET = "?token=SECRET"  # noqa: S105


class Site:
    """A server whose pages a test defines. requests: those received so far."""

    def __init__(self) -> None:
        self.requests: list[web.Request] = []
        self.pages: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {}
        app = web.Application()
        app.router.add_get("/{tail:.*}", self._answer)
        self.server = TestServer(app)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        return await self.pages[request.path](request)

    def page(self, path: str, body: bytes = b"", status: int = 200, **headers: str) -> str:
        named = {name.replace("_", "-"): value for name, value in headers.items()}

        async def answer(_request: web.Request) -> web.StreamResponse:
            return web.Response(body=body, status=status, headers=named)

        self.pages[path] = answer
        return self.url(path)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server.port}{path}{SECRET}"


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    async with site.server:
        yield site


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
async def fetcher(cache: Path) -> AsyncIterator[Fetcher]:
    async with Fetcher(cache, AddressPolicy.everything(), 5) as fetcher:
        yield fetcher


async def fetch(fetcher: Fetcher, source: str) -> InputFile:
    return await fetcher.fetch(source, max_bytes=LIMIT, loc=LOC)


async def refused(fetcher: Fetcher, source: str, type: str = "file_download_error") -> str:  # noqa: A002
    """Returns the message of the refusal. Checks that it holds no secret and that no partial file remains."""
    with pytest.raises(RequestError) as caught:
        await fetch(fetcher, source)
    (problem,) = caught.value.problems
    assert (problem.loc, problem.type) == (LOC, type)
    assert "SECRET" not in problem.message
    assert caught.value.__cause__ is None or source.startswith(("/", "file:"))
    assert list(fetcher._cache.iterdir()) == []
    return problem.message


async def test_download(site: Site, fetcher: Fetcher, cache: Path) -> None:
    url = site.page("/pictures/cat.png", CONTENT, Content_Type="image/PNG; x=y")
    fetched = await fetch(fetcher, url)
    assert fetched == InputFile(cache / SHA256, SHA256, "cat.png", "image/png")
    assert fetched.path.read_bytes() == CONTENT


async def test_identical_content_is_stored_once(site: Site, fetcher: Fetcher, cache: Path) -> None:
    sources = [site.page("/a", CONTENT), site.page("/b", CONTENT), "data:," + CONTENT.decode()]
    files = [await fetch(fetcher, source) for source in sources]
    assert {file.sha256 for file in files} == {SHA256}
    assert list(cache.iterdir()) == [cache / SHA256]


async def test_headers_are_not_sent_to_another_host(site: Site, cache: Path) -> None:
    site.page("/end", CONTENT)
    site.page("/here", status=302, Location="/end")
    site.page("/there", status=302, Location=site.url("/end", "other.example"))
    headers = {"Authorization": "Bearer x"}
    resolver = FixedResolver("127.0.0.1")
    async with Fetcher(cache, AddressPolicy.everything(), 5, resolver=resolver) as fetcher:
        for path, last in (("/here", "Bearer x"), ("/there", None)):
            await fetcher.fetch(site.url(path), max_bytes=LIMIT, loc=LOC, headers=headers)
            first, second = site.requests[-2:]
            assert first.headers["Authorization"] == "Bearer x"
            assert second.headers.get("Authorization") == last


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('attachment; filename="a b.mp4"', "a b.mp4"),
        ("attachment; filename*=UTF-8''F%C3%BCchse.png", "Füchse.png"),
        ('attachment; filename="../../etc/passwd"', "passwd"),
        ('attachment; filename="C:\\\\x\\\\y.png"', "y.png"),
        ('attachment; filename=".."', "file"),
        ("attachment", "url name.bin"),
        ("; ;;=", "url name.bin"),
    ],
)
async def test_name_comes_from_the_header_or_the_url(site: Site, fetcher: Fetcher, disposition: str, name: str) -> None:
    site.page("/url name.bin", CONTENT, Content_Disposition=disposition)
    assert (await fetch(fetcher, site.url("/url%20name.bin"))).name == name


async def test_response_without_name_and_type(site: Site, fetcher: Fetcher) -> None:
    async def bare(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        del response.headers["Content-Type"]
        await response.write(CONTENT)
        return response

    site.pages["/"] = bare
    assert (await fetch(fetcher, site.url("/"))).name == "file"


async def test_file_that_announces_too_many_bytes_is_refused(site: Site, fetcher: Fetcher) -> None:
    message = await refused(fetcher, site.page("/a", bytes(LIMIT + 1)), "file_too_large")
    assert str(LIMIT) in message


async def test_endless_file_is_refused(site: Site, fetcher: Fetcher) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(10_000))

    site.pages["/a"] = endless
    await refused(fetcher, site.url("/a"), "file_too_large")


async def test_decompression_bomb_is_refused(site: Site, fetcher: Fetcher) -> None:
    async def bomb(_request: web.Request) -> web.StreamResponse:
        response = web.Response(body=bytes(50 * LIMIT))
        response.enable_compression(web.ContentCoding.gzip)
        return response

    site.pages["/a"] = bomb
    await refused(fetcher, site.url("/a"), "file_too_large")


async def test_file_of_the_maximum_size_is_accepted(site: Site, fetcher: Fetcher) -> None:
    assert (await fetch(fetcher, site.page("/a", bytes(LIMIT)))).path.stat().st_size == LIMIT


async def test_empty_file_is_refused(site: Site, fetcher: Fetcher) -> None:
    assert "empty" in await refused(fetcher, site.page("/a"))


@pytest.mark.parametrize("status", [304, 401, 404, 500])
async def test_error_status_is_reported(site: Site, fetcher: Fetcher, status: int) -> None:
    message = await refused(fetcher, site.page("/a", status=status))
    assert f"127.0.0.1 answered with status {status}" in message


async def test_interrupted_download_is_reported(site: Site, fetcher: Fetcher) -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport
        request.transport.close()
        return response

    site.pages["/a"] = broken
    assert "interrupted" in await refused(fetcher, site.url("/a"))


async def test_slow_download_times_out(site: Site, cache: Path) -> None:
    released = asyncio.Event()

    async def slow(_request: web.Request) -> web.StreamResponse:
        await released.wait()
        return web.Response()

    site.pages["/a"] = slow
    async with Fetcher(cache, AddressPolicy.everything(), 0.05) as fetcher:
        assert "longer than 0.05 seconds" in await refused(fetcher, site.url("/a"))
    released.set()


async def test_cancelled_download_leaves_no_file(site: Site, fetcher: Fetcher, cache: Path) -> None:
    started, released = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        started.set()
        await released.wait()
        return response

    site.pages["/a"] = slow
    task = asyncio.create_task(fetch(fetcher, site.url("/a")))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(cache.iterdir()) == []
    released.set()


async def test_refused_connection_is_reported(fetcher: Fetcher) -> None:
    assert "connection refused" in await refused(fetcher, f"http://127.0.0.1:{unused_port()}/{SECRET}")


async def test_unknown_host_is_reported(fetcher: Fetcher) -> None:
    assert "nowhere.invalid" in await refused(fetcher, f"http://nowhere.invalid/{SECRET}")


async def test_untrusted_certificate_is_reported(cache: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    server = TestServer(web.Application(), scheme="https")
    await server.start_server(ssl=context)
    async with Fetcher(cache, AddressPolicy.everything(), 5) as fetcher:
        assert "certificate" in await refused(fetcher, f"https://127.0.0.1:{server.port}/{SECRET}")
    await server.close()


@pytest.mark.parametrize(
    "source",
    ["http://", "http:///a", "http://[::1", "http://a b/", "http://a:99999/", "http://" + "a" * 70 + ".com/", "https:"],
)
async def test_malformed_urls_are_refused(fetcher: Fetcher, source: str) -> None:
    await refused(fetcher, source)


@pytest.mark.parametrize("source", ["ftp://127.0.0.1/a", "s3://bucket/a", "javascript:1", "blob:x"])
async def test_other_schemes_are_refused(fetcher: Fetcher, source: str) -> None:
    assert "cannot be fetched" in await refused(fetcher, source)


async def test_at_most_five_redirects_are_followed(site: Site, fetcher: Fetcher) -> None:
    site.page("/0", CONTENT)
    for i in range(1, 7):
        site.page(f"/{i}", status=(301, 302, 303, 307, 308)[i % 5], Location=f"{i - 1}")
    assert (await fetch(fetcher, site.url("/5"))).sha256 == SHA256
    (fetcher._cache / SHA256).unlink()
    assert "more than 5 times" in await refused(fetcher, site.url("/6"))


@pytest.mark.parametrize("location", ["", "file:///etc/passwd", "data:,x", "ftp://a/", "http://[", "gopher://a:70/"])
async def test_invalid_redirect_targets_are_refused(site: Site, fetcher: Fetcher, location: str) -> None:
    await refused(fetcher, site.page("/a", status=302, Location=location))


def test_redirect_from_https_to_http_is_refused() -> None:
    with pytest.raises(RequestError, match="unencrypted"):
        _next_hop(URL("https://example.com/a"), "http://example.com/b", LOC)
    assert _next_hop(URL("https://example.com/a/b"), "c", LOC) == URL("https://example.com/a/c")
    assert _next_hop(URL("http://example.com/a"), "https://b/", LOC) == URL("https://b/")


async def test_redirect_to_a_private_address_is_refused(site: Site, cache: Path) -> None:
    """The policy allows the first host by its name, but not the second."""
    site.page("/a", status=302, Location=site.url("/b", "127.0.0.2"))
    policy = AddressPolicy(("public.example",))
    async with Fetcher(cache, policy, 5, resolver=FixedResolver("127.0.0.1")) as fetcher:
        message = await refused(fetcher, site.url("/a", "public.example"))
    assert "127.0.0.2 failed: its address is not public, and KEYREEL_ALLOW_HOSTS does not allow it" in message
    assert [request.path for request in site.requests] == ["/a"]


async def test_host_with_a_private_address_is_refused(site: Site, cache: Path) -> None:
    async with Fetcher(cache, AddressPolicy(), 5, resolver=FixedResolver("127.0.0.1")) as fetcher:
        message = await refused(fetcher, site.url("/a", "rebind.example"))
    assert "rebind.example failed: its address is not public, and KEYREEL_ALLOW_HOSTS does not allow it" in message
    assert "127.0.0.1" not in message
    assert site.requests == []


@pytest.mark.parametrize(
    ("source", "content_type"),
    [
        ("data:image/png;base64,Y29udGVudA==", "image/png"),
        ("data:image/png;base64,Y29udGVudA", "image/png"),
        ("DATA:image/PNG;charset=x;BASE64,Y29u dGVu\ndA%3D%3D", "image/png"),
        ("data:;base64,Y29udGVudA==", None),
        ("data:,content", None),
        ("data:text/plain,c%6Fntent", "text/plain"),
    ],
)
async def test_data_uri_is_decoded(fetcher: Fetcher, source: str, content_type: str | None) -> None:
    fetched = await fetch(fetcher, source)
    assert fetched.path.read_bytes() == b"content"
    assert fetched.content_type == content_type


@pytest.mark.parametrize(
    "source",
    [
        "data:",
        "data:image/png",
        "data:;base64,Y",
        "data:;base64,!!!!",
        "data:;base64,Y29=udA",
        "data:,",
        "data:,\ud800",
    ],
)
async def test_malformed_data_uris_are_refused(fetcher: Fetcher, source: str) -> None:
    await refused(fetcher, source)


async def test_too_large_data_uris_are_refused(fetcher: Fetcher) -> None:
    await refused(fetcher, "data:," + "x" * (LIMIT + 1), "file_too_large")
    await refused(fetcher, "data:;base64," + base64.b64encode(bytes(LIMIT + 1)).decode(), "file_too_large")
    exact = await fetch(fetcher, "data:;base64," + base64.b64encode(bytes(LIMIT)).decode())
    assert exact.path.stat().st_size == LIMIT


def parsed(source: str) -> tuple[str | None, bytes]:
    """Returns the content type and the content of a data URI."""
    content_type, pieces = parse_data_uri(source, LIMIT, LOC)
    return content_type, b"".join(pieces)


DATA = st.one_of(st.text("AQag+/-_=%3D \n41,é"), st.binary().map(lambda content: base64.b64encode(content).decode()))


@example("A%%41%4%41", "", 3)
@example("QQ=%3D", ";base64", 3)
@given(DATA, st.sampled_from(["", ";base64"]), st.integers(3, 9))
def test_data_uris_are_the_same_in_pieces_of_any_size(text: str, head: str, size: int) -> None:
    source, results = f"data:{head},{text}", []
    for piece in (size, fetch_module.CHUNK):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fetch_module, "CHUNK", piece)
            try:
                results.append(parsed(source)[1])
            except RequestError as error:
                results.append(str(error).encode())
    assert results[0] == results[1]


@pytest.mark.slow
@given(st.binary(), st.from_regex(r"([a-z]+/[a-z0-9.+-]+)?(;[a-z]+=[a-z0-9]+)*", fullmatch=True))
def test_data_uri_round_trip(content: bytes, media_type: str) -> None:
    expected = (media_type.partition(";")[0] or None, content)
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        text = encode(content).decode()
        for source in (f"data:{media_type};base64,{text}", f"data:{media_type};base64,{quote(text.rstrip('='))}"):
            assert parsed(source) == expected
    assert parsed(f"data:{media_type},{quote(content)}") == expected


@example("00", ";base64,", 0)  # one byte, unpadded
@given(st.text(), st.sampled_from(["", ";base64,", ",", "image/png;base64,"]), st.integers(0, 20))
def test_any_data_uri_is_read_or_refused(text: str, head: str, limit: int) -> None:
    try:
        _, pieces = parse_data_uri(f"data:{head}{text}", limit, LOC)
    except RequestError:
        return
    assert sum(map(len, pieces)) <= limit


async def test_local_files_are_refused_by_default(fetcher: Fetcher, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(CONTENT)
    for source in (str(path), "a.png", path.as_uri(), "~/a.png", "//127.0.0.1/a", ""):
        message = await refused(fetcher, source)
        assert "neither an HTTP URL nor a data URI, and paths on the server are not allowed" in message


async def test_local_files_are_read_with_a_local_base(cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    path = folder / "ä.png"
    path.write_bytes(CONTENT)
    async with Fetcher(cache, AddressPolicy(), 5, local_base=folder) as fetcher:
        for source in ("ä.png", "./ä.png", "../a folder/ä.png", str(path), path.as_uri()):
            fetched = await fetch(fetcher, source)
            assert fetched.path.samefile(path)
            assert (fetched.sha256, fetched.name, fetched.content_type) == (SHA256, "ä.png", None)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    "source", ["missing.png", ".", "~", "a\0b", "file://elsewhere/a.png", "", "empty", "/dev/zero"]
)
async def test_unreadable_local_files_are_refused(cache: Path, tmp_path: Path, source: str) -> None:
    (tmp_path / "empty").touch()
    async with Fetcher(cache, AddressPolicy(), 5, local_base=tmp_path) as fetcher:
        with pytest.raises(RequestError):
            await fetch(fetcher, source)


async def test_too_large_local_file_is_refused(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(LIMIT + 1))
    async with Fetcher(cache, AddressPolicy(), 5, local_base=tmp_path) as fetcher:
        await refused(fetcher, str(tmp_path / "a"), "file_too_large")
