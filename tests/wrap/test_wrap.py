"""Real programs behind the real command: fal's Python client and Node's fetch."""

import asyncio
import json
import os
import shutil
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from aiohttp import web

from keyreel.wrap.proxy import parse_server

CLIENT = """
import json, fal_client
print(json.dumps([
    fal_client.run("fal-ai/ltx-video-lora", arguments={"prompt": "x"}),
    fal_client.upload(b"text", "text/plain"),
]))
"""
TUNNELLED = "import httpx, sys; print(httpx.get(sys.argv[1]).text)"
NODE = """
const run = await (await fetch("https://queue.fal.run/fal-ai/a?b=c", {method: "POST", body: "{}"})).json();
const request = await (await fetch(new Request("https://rest.fal.ai/tokens/", {method: "POST", body: "{}"}))).json();
console.log(JSON.stringify([run, request]));
"""


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that answers with what it was asked."""

    async def echo(request: web.Request) -> web.Response:
        if request.path == "/storage/auth/token":
            answer = {"token": "t", "token_type": "Bearer", "base_url": "-", "expires_at": "2100-01-01T00:00:00+00:00"}
            return web.json_response(answer)
        asked = {"host": request.host, "path": request.path_qs, "key": request.headers.get("Authorization")}
        return web.json_response(asked | {"access_url": f"{request.host}{request.path}"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    yield f"127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def wrapped(server: str, *command: str, **environment: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "keyreel", "wrap", "--server", server, "--", *command),
        env=os.environ | {"FAL_KEY": "id:secret"} | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode(), err.decode()


async def test_fals_python_client_reaches_the_server() -> None:
    async with serving() as server:
        code, out, err = await wrapped(f"http://{server}", sys.executable, "-c", CLIENT)
    assert code == 0, err
    run, uploaded = json.loads(out)
    assert (run["host"], run["path"], run["key"]) == ("fal.run", "/fal-ai/ltx-video-lora", "Key id:secret")
    assert uploaded == "v3.fal.media/files/upload"


async def test_nodes_fetch_reaches_the_server(tmp_path: Path) -> None:
    node = shutil.which("node")
    if not node:
        pytest.skip("Node is not installed")
    (tmp_path / "app.mjs").write_text(NODE)
    async with serving() as server:
        code, out, err = await wrapped(f"http://{server}", node, str(tmp_path / "app.mjs"))
    assert code == 0, err
    run, token = json.loads(out)
    assert (run["host"], run["path"]) == (server, "/queue/fal-ai/a?b=c")
    assert token["path"] == "/tokens/"


async def test_other_hosts_are_left_alone(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    async with serving() as server, serving(tls) as other:
        code, out, err = await wrapped(
            server, sys.executable, "-c", TUNNELLED, f"https://{other}/page", SSL_CERT_FILE=str(tmp_path / "ca.pem")
        )
    assert code == 0, err
    assert (json.loads(out)["host"], json.loads(out)["path"]) == (other, "/page")


async def test_an_earlier_proxy_still_carries_other_hosts(tmp_path: Path) -> None:
    """Two wraps in each other: the inner one passes on to the outer one what it does not answer itself."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    inner = ("-m", "keyreel", "wrap", "--", sys.executable, "-c", TUNNELLED)
    async with serving() as server, serving(tls) as other:
        code, out, err = await wrapped(
            server, sys.executable, *inner, f"https://{other}/x", SSL_CERT_FILE=str(tmp_path / "ca.pem")
        )
    assert code == 0, err
    assert json.loads(out)["path"] == "/x"


async def test_the_programs_status_is_passed_on_and_nothing_stays_behind(tmp_path: Path) -> None:
    program = "import os, sys; print(os.environ['SSL_CERT_FILE']); sys.exit(7)"
    code, out, _ = await wrapped("127.0.0.1:1", sys.executable, "-c", program, TMPDIR=str(tmp_path))
    assert code == 7
    assert out.startswith(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


async def test_a_program_that_is_not_there_is_said() -> None:
    code, _, err = await wrapped("127.0.0.1:1", "no-such-program")
    assert (code, err) == (127, "keyreel: cannot run 'no-such-program'\n")


@pytest.mark.parametrize("server", ["ftp://a", "http://", "http://a/prefix", "http://[::1"])
def test_addresses_that_are_none_are_refused(server: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any
        parse_server(server)
