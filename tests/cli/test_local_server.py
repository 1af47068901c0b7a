import asyncio
import ssl
import stat
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from keyreel.cli.local_server import LocalServer
from keyreel.errors import KeyreelError
from keyreel.net.certificates import make_authority

SERVER = LocalServer("http://127.0.0.1:8000", "id:secret", 42)


async def echo(request: web.Request) -> web.Response:
    body = await request.json() if request.can_read_body else None
    return web.json_response([request.method, request.headers["Authorization"], body])


async def refuse(_request: web.Request) -> web.Response:
    return web.json_response({"detail": "There is no such key."}, status=404)


def make_app() -> web.Application:
    app = web.Application()
    app.router.add_route("*", "/health/live", echo)
    app.router.add_route("*", "/keys", echo)
    app.router.add_route("*", "/keys/missing", refuse)
    return app


@pytest.fixture
async def running() -> AsyncIterator[LocalServer]:
    async with TestServer(make_app()) as server:
        yield replace(SERVER, url=f"http://127.0.0.1:{server.port}")


def test_file_describes_the_server_during_the_block(tmp_path: Path) -> None:
    with SERVER.announced(tmp_path):
        assert LocalServer.find(tmp_path) == SERVER
        (file,) = tmp_path.iterdir()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == []


def test_file_of_a_killed_server_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "server.json").write_text("old")
    (tmp_path / "server.json").chmod(0o644)
    with SERVER.announced(tmp_path):
        assert LocalServer.find(tmp_path) == SERVER
        assert stat.S_IMODE((tmp_path / "server.json").stat().st_mode) == 0o600


def test_exception_removes_the_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), SERVER.announced(tmp_path):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [None, "", "{", "[]", "3", '{"url": "http://127.0.0.1"}'])
def test_missing_or_invalid_file_is_no_server(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "server.json").write_text(content)
    assert LocalServer.find(tmp_path) is None


def test_credentials_are_not_printed() -> None:
    assert "secret" not in repr(SERVER)


async def test_call_returns_the_response(running: LocalServer) -> None:
    get = await asyncio.to_thread(running.call, "GET", "/keys")
    post = await asyncio.to_thread(running.call, "POST", "/keys", {"name": "studio"})
    assert get == ["GET", "Key id:secret", None]
    assert post == ["POST", "Key id:secret", {"name": "studio"}]


async def test_call_raises_the_servers_message(running: LocalServer) -> None:
    with pytest.raises(KeyreelError, match=r"There is no such key\."):
        await asyncio.to_thread(running.call, "DELETE", "/keys/missing")


async def test_proxies_of_the_environment_are_ignored(running: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{unused_port()}")
    assert await asyncio.to_thread(running.answers)


def test_killed_server_does_not_answer() -> None:
    killed = replace(SERVER, url=f"http://127.0.0.1:{unused_port()}")
    assert not killed.answers()
    with pytest.raises(KeyreelError, match=f"No server answers at {killed.url}: .*refused"):
        killed.call("GET", "/keys")


async def test_certificate_of_the_servers_authority_is_trusted(tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    issued = authority.issue(tmp_path, ["127.0.0.1"])
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(issued.certificate, issued.key)
    server = TestServer(make_app(), scheme="https")
    await server.start_server(ssl=tls)
    trusting = replace(SERVER, url=f"https://127.0.0.1:{server.port}", authority=str(authority.certificate))
    assert await asyncio.to_thread(trusting.answers)
    assert not await asyncio.to_thread(replace(trusting, authority=None).answers)
    await server.close()
