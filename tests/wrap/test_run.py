"""`keyreel wrap` with real programs, among them both of fal's clients."""

import json
import shutil
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from keyreel.fal.hosts import NO_WEBSOCKETS, WEBSOCKET_CLOSED
from keyreel.net.certificates import make_authority
from tests.js import JS, install
from tests.server.live import LiveServer, live_server
from tests.wrap.programs import HTTPX_GET, echo_server, run_wrapped

# A program that knows only fal.ai and reads only FAL_KEY.
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
NODE = """
const run = await (await fetch("https://queue.fal.run/fal-ai/a?b=c", {method: "POST", body: "{}"})).json();
const request = await (await fetch(new Request("https://rest.fal.ai/tokens/", {method: "POST", body: "{}"}))).json();
console.log(JSON.stringify([run, request]));
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(tmp_path_factory.mktemp("server")) as server:
        yield server


async def test_a_program_with_fals_python_client_uses_the_server(fal: LiveServer) -> None:
    code, out, err = await run_wrapped(fal.url, sys.executable, "-c", APP, FAL_KEY=fal.credentials)
    assert code == 0, err
    output = json.loads(out)
    assert [output[way]["seed"] for way in ("subscribe", "run", "async")] == [3, 3, 3]
    assert output["lines"][-1] == "Decoding"
    for lease in fal.worker.leases[-3:]:
        (video,) = lease.input["videos"]
        assert fal.services.links.file_of(video["video_url"])


async def test_a_program_with_fals_javascript_client_uses_the_server(fal: LiveServer) -> None:
    install()
    code, out, err = await run_wrapped(fal.url, "node", str(JS / "app.mjs"), FAL_KEY=fal.credentials)
    assert code == 0, err
    output = json.loads(out)
    lease = fal.worker.leases[-1]
    assert (output["data"]["seed"], output["requestId"], output["clip"]) == (3, lease.id, "a clip")
    assert output["lines"] == ["Denoising, step 1 of 2", "Decoding"]
    sources = lease.input["images"][0]["image_url"], lease.input["videos"][0]["video_url"]
    assert all(source.startswith("https://v3.fal.media/files/") for source in sources)
    assert all(fal.services.links.file_of(source) for source in sources)


async def test_realtime_of_fals_javascript_client_ends_with_a_reason(fal: LiveServer) -> None:
    install()
    code, out, err = await run_wrapped(fal.url, "node", str(JS / "realtime.mjs"), FAL_KEY=fal.credentials)
    assert code == 0, err
    (error,) = map(json.loads, out.splitlines())
    assert error == {"message": f"Error closing the connection: {NO_WEBSOCKETS}", "status": WEBSOCKET_CLOSED}


async def test_nodes_fetch_reaches_the_server(tmp_path: Path) -> None:
    node = shutil.which("node")
    if not node:
        pytest.skip("Node is not installed")
    (tmp_path / "app.mjs").write_text(NODE)
    async with echo_server() as server:
        code, out, err = await run_wrapped(server, node, str(tmp_path / "app.mjs"))
    assert code == 0, err
    run, token = json.loads(out)
    assert (run["host"], run["path"]) == ("queue.fal.run", "/fal-ai/a?b=c")
    assert token["path"] == "/tokens/"


async def test_a_server_with_its_own_certificate(tmp_path: Path) -> None:
    """Only SSL_CERT_FILE contains the server's authority, as after `keyreel serve --tls`. Node also trusts another."""
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
    async with echo_server(tls) as server:
        for command in ((node, str(tmp_path / "app.mjs")), (sys.executable, "-c", HTTPX_GET, "https://fal.run/a")):
            code, _, err = await run_wrapped(f"https://{server}", *command, **trusted)
            assert code == 0, err
        code, _, err = await run_wrapped(f"https://{server}", *command, SSL_CERT_FILE=trusted["NODE_EXTRA_CA_CERTS"])
    assert code == 2
    assert f"The certificate of https://{server} is not trusted here" in err


async def test_a_server_that_does_not_run_is_reported() -> None:
    code, _, err = await run_wrapped("127.0.0.1:1", sys.executable, "-c", "")
    assert code == 2
    assert err.startswith("keyreel: No server answers at http://127.0.0.1:1 (")


async def test_the_exit_status_is_passed_on_and_no_file_is_left(tmp_path: Path) -> None:
    program = "import os, sys; print(os.environ['SSL_CERT_FILE']); sys.exit(7)"
    async with echo_server() as server:
        code, out, _ = await run_wrapped(server, sys.executable, "-c", program, TMPDIR=str(tmp_path))
    assert code == 7
    assert out.startswith(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


async def test_a_missing_program_is_reported() -> None:
    async with echo_server() as server:
        code, _, err = await run_wrapped(server, "no-such-program")
    assert code == 127
    assert err.endswith("keyreel: cannot run 'no-such-program'\n")


async def test_a_connection_that_is_open_at_the_end_leaves_no_traceback() -> None:
    """A child that outlives the program keeps tunnels open, through the proxy and to the stand-in."""
    child = """
import os, socket, sys, urllib.parse
proxy = urllib.parse.urlsplit(os.environ["HTTPS_PROXY"])
tunnel = socket.create_connection((proxy.hostname, proxy.port))
tunnel.sendall(b"CONNECT fal.run:443 HTTP/1.1\\r\\n\\r\\n")
tunnel.recv(100)
direct = socket.create_connection(("fal.run", 443))
sys.stdout.write("open")
sys.stdout.close()
os.close(1), os.close(2)
direct.recv(1)
"""
    program = (
        f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {child!r}], stdout=-1).stdout.read())"
    )
    async with echo_server() as server:
        code, out, err = await run_wrapped(server, sys.executable, "-c", program)
    assert (code, out) == (0, "b'open'\n")
    assert err.startswith("keyreel: the program called")
    assert "Traceback" not in err


async def test_the_calls_are_listed_without_ids() -> None:
    program = f"{HTTPX_GET}; httpx.post('https://rest.fal.ai/requests/019ad2b3-aaaa-bbbb-cccc-0123456789ab/cancel')"
    async with echo_server() as server:
        code, _, err = await run_wrapped(server, sys.executable, "-c", program, "https://fal.run/a/b?c=d")
    assert code == 0
    assert err.splitlines() == [
        "keyreel: the program called:",
        f"    1  GET https://fal.run/a/b -> http://{server} (200)",
        f"    1  POST https://rest.fal.ai/requests/.../cancel -> http://{server} (200)",
    ]


async def test_a_model_that_the_server_lacks_is_named(fal: LiveServer) -> None:
    program = f"""
import httpx
for url in ("queue.fal.run/fal-ai/flux/dev", "fal.run/fal-ai/flux/dev", "queue.fal.run/fal-ai/x"):
    httpx.post("https://" + url, json={{}}, headers={{"Authorization": "Key {fal.credentials}"}})
"""
    _, _, err = await run_wrapped(fal.url, sys.executable, "-c", program)
    warnings = [line for line in err.splitlines() if "asked for" in line]
    assert warnings == [
        f"keyreel: the program asked for {model}, which {fal.url} does not serve."
        for model in ("fal-ai/flux/dev", "fal-ai/x")
    ]
