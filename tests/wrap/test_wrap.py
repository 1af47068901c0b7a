"""Real programs behind the real command: both of fal's clients, and others."""

import asyncio
import json
import os
import shutil
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from aiohttp import web

from keyreel.certificates import make_authority
from keyreel.errors import KeyreelError
from keyreel.wrap.proxy import parse_server
from tests.js import JS, install
from tests.server.live import LiveServer, live_server

# Knows only fal.ai: FAL_KEY is all it reads.
APP = """
import asyncio, json, fal_client

ENDPOINT = "fal-ai/ltx-video-lora/multiconditioning"
clip = fal_client.upload(b"a clip", "video/mp4", "clip.mp4")
arguments = {"prompt": "a fox", "seed": 3, "videos": [{"video_url": clip}]}
lines = []

def on_update(update):
    lines.extend(line["message"] for line in getattr(update, "logs", None) or [])

async def later():
    arguments["videos"] = [{"video_url": await fal_client.upload_async(b"another", "video/mp4")}]
    return await fal_client.subscribe_async(ENDPOINT, arguments)

print(json.dumps({
    "subscribe": fal_client.subscribe(ENDPOINT, arguments, with_logs=True, on_queue_update=on_update),
    "run": fal_client.run(ENDPOINT, arguments),
    "async": asyncio.run(later()),
    "lines": lines,
}))
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


@pytest.fixture(scope="module")
def fal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(tmp_path_factory.mktemp("server")) as server:
        yield server


async def test_a_python_program_that_knows_only_fal(fal: LiveServer) -> None:
    code, out, err = await wrapped(fal.url, sys.executable, "-c", APP, FAL_KEY=fal.credentials)
    assert code == 0, err
    said = json.loads(out)
    assert [said[way]["seed"] for way in ("subscribe", "run", "async")] == [3, 3, 3]
    assert said["lines"][-1] == "Decoding"
    for lease in fal.worker.seen[-3:]:
        (video,) = lease.input["videos"]
        assert fal.services.links.file_of(video["video_url"])


async def test_a_node_program_that_knows_only_fal(fal: LiveServer) -> None:
    install()
    code, out, err = await wrapped(fal.url, "node", str(JS / "app.mjs"), FAL_KEY=fal.credentials)
    assert code == 0, err
    said = json.loads(out)
    lease = fal.worker.seen[-1]
    assert (said["data"]["seed"], said["requestId"], said["clip"]) == (3, lease.id, "a clip")
    assert said["lines"] == ["Denoising, step 1 of 2", "Decoding"]
    sources = lease.input["images"][0]["image_url"], lease.input["videos"][0]["video_url"]
    assert all(source.startswith(f"{fal.url}/files/") for source in sources)


async def test_nodes_fetch_reaches_the_server(tmp_path: Path) -> None:
    node = shutil.which("node")
    if not node:
        pytest.skip("Node is not installed")
    (tmp_path / "app.mjs").write_text(NODE)
    async with serving() as server:
        code, out, err = await wrapped(server, node, str(tmp_path / "app.mjs"))
    assert code == 0, err
    run, token = json.loads(out)
    assert (run["host"], run["path"]) == (server, "/queue/fal-ai/a?b=c")
    assert token["path"] == "/tokens/"


async def test_a_server_with_a_certificate_of_its_own(tmp_path: Path) -> None:
    """Known to SSL_CERT_FILE only, as `keyreel serve --tls` says, and whatever else Node was told to trust."""
    node = shutil.which("node")
    if not node:
        pytest.skip("Node is not installed")
    (tmp_path / "app.mjs").write_text(NODE)
    trustme.CA().cert_pem.write_to_path(tmp_path / "another.pem")
    trusted = {
        "SSL_CERT_FILE": str(tmp_path / "authority.pem"),
        "NODE_EXTRA_CA_CERTS": str(tmp_path / "another.pem"),
    }
    served = make_authority(tmp_path).issue(tmp_path, ["127.0.0.1"])
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(served.certificate, served.key)
    async with serving(tls) as server:
        for command in ((node, str(tmp_path / "app.mjs")), (sys.executable, "-c", TUNNELLED, "https://fal.run/a")):
            code, _, err = await wrapped(f"https://{server}", *command, **trusted)
            assert code == 0, err
        code, _, err = await wrapped(f"https://{server}", *command, SSL_CERT_FILE=trusted["NODE_EXTRA_CA_CERTS"])
    assert code == 2
    assert f"The certificate of https://{server} is not trusted here" in err


async def test_no_server() -> None:
    code, _, err = await wrapped("127.0.0.1:1", sys.executable, "-c", "")
    assert code == 2
    assert err.startswith("keyreel: No server answers at http://127.0.0.1:1 (")


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
    async with serving() as server, serving(tls) as other:
        inner = ("-m", "keyreel", "wrap", "--server", server, "--", sys.executable, "-c", TUNNELLED)
        code, out, err = await wrapped(
            server, sys.executable, *inner, f"https://{other}/x", SSL_CERT_FILE=str(tmp_path / "ca.pem")
        )
    assert code == 0, err
    assert json.loads(out)["path"] == "/x"


async def test_the_programs_status_is_passed_on_and_nothing_stays_behind(tmp_path: Path) -> None:
    program = "import os, sys; print(os.environ['SSL_CERT_FILE']); sys.exit(7)"
    async with serving() as server:
        code, out, _ = await wrapped(server, sys.executable, "-c", program, TMPDIR=str(tmp_path))
    assert code == 7
    assert out.startswith(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


async def test_a_program_that_is_not_there_is_said() -> None:
    async with serving() as server:
        code, _, err = await wrapped(server, "no-such-program")
    assert (code, err) == (127, "keyreel: cannot run 'no-such-program'\n")


@pytest.mark.parametrize("server", ["ftp://a", "http://", "http://a/prefix", "http://[::1", "http://a:b"])
def test_addresses_that_are_none_are_refused(server: str) -> None:
    with pytest.raises(KeyreelError, match="is not the address of a server"):
        parse_server(server)
