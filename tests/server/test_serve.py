"""`keyreel serve` and `keyreel keys`, as real processes."""

import json
import os
import re
import shlex
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from keyreel.cli.keys import keys
from tests.js import JS, environment, install
from tests.server.live import ENDPOINT

# Both say that a request waits, and what its end is once it was cancelled.
PYTHON = """
import fal_client
handle = fal_client.submit("fal-ai/ltx-video-lora/multiconditioning", {"prompt": "a fox"})
print(type(handle.status()).__name__)
handle.cancel()
try:
    handle.get()
except fal_client.FalClientHTTPError as error:
    print(error.status_code)
"""
NODE = """
import { fal } from "@fal-ai/client";
CONFIG
const id = "fal-ai/ltx-video-lora/multiconditioning";
const { request_id: requestId } = await fal.queue.submit(id, { input: { prompt: "a fox" } });
console.log((await fal.queue.status(id, { requestId })).status);
await fal.queue.cancel(id, { requestId });
await fal.queue.result(id, { requestId }).catch((error) => console.log(error.status));
"""
SERVE = "import typer; from keyreel.cli.serve import serve; typer.run(serve)"
PATIENCE = 60


@contextmanager
def started(folder: Path, *options: str, **variables: str) -> Iterator[str]:
    """What the server says at its start. Ended by SIGTERM, in good order."""
    command = [sys.executable, "-c", SERVE, "--port", "0", "--no-worker", "--data-dir", str(folder), *options]
    environment = os.environ | variables
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        try:
            said = "".join(_through(process.stdout, "Its uploads" if "--tls" in options else "REST_URL"))
            assert " is at " in said, process.stderr.read()
            yield said
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0, process.stderr.read()
        finally:
            process.kill()


@contextmanager
def serving(folder: Path, **variables: str) -> Iterator[tuple[str, str]]:
    """The server's URL and the credentials that it printed."""
    with started(folder, **variables) as said:
        yield address(said)


def _through(lines: Iterable[str], last: str) -> Iterator[str]:
    for line in lines:
        yield line
        if last in line:
            return


def address(said: str) -> tuple[str, str]:
    (shown,) = re.findall(" is at (.*)", said)
    url, _, key = shown.partition("/#key=")
    return url, key


def manage(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(keys, [*arguments, "--data-dir", str(folder)])


def refused(*arguments: str, **variables: str) -> str:
    """What `keyreel serve` says when it does not start."""
    command = [sys.executable, "-c", SERVE, "--no-worker", *arguments]
    environment = os.environ | variables
    said = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert said.returncode == 1, said.stderr
    return said.stderr.strip()


def submit(url: str, credentials: str) -> httpx.Response:
    headers = {"Authorization": f"Key {credentials}"}
    return httpx.post(f"{url}/queue/{ENDPOINT}", json={"prompt": "a fox"}, headers=headers, trust_env=False)


def test_from_the_first_start_to_the_second(tmp_path: Path) -> None:
    with serving(tmp_path) as (url, first):
        answer = submit(url, first)
        assert answer.status_code == 200
        assert answer.json()["status_url"].startswith(f"{url}/queue/")
        assert (tmp_path / "server.json").stat().st_mode & 0o077 == 0
    assert not (tmp_path / "server.json").exists()
    assert first.split(":")[1].encode() not in (tmp_path / "keyreel.db").read_bytes()

    with serving(tmp_path, KEYREEL_PUBLIC_URL="https://videos.example/api/") as (url, shown):
        assert (url, shown) == ("https://videos.example/api", "")
        server = json.loads((tmp_path / "server.json").read_text())["url"]
        # What was queued before the restart is there.
        path = httpx.URL(answer.json()["status_url"]).path
        status = httpx.get(f"{server}{path}", headers={"Authorization": f"Key {first}"}, trust_env=False)
        assert status.json()["status"] == "IN_QUEUE"
        assert status.json()["status_url"].startswith("https://videos.example/api/queue/")


def test_keys_with_and_without_a_server(tmp_path: Path) -> None:
    made = manage(tmp_path, "create", "before").stdout.strip()
    assert re.fullmatch(r"[\w-]+:[0-9a-f]{64}", made)
    with serving(tmp_path) as (url, shown):
        assert shown == ""  # there is a key already
        assert submit(url, made).status_code == 200
        later = manage(tmp_path, "create", "later").stdout.strip()
        assert submit(url, later).status_code == 200
        assert manage(tmp_path, "revoke", later.split(":")[0]).exit_code == 0
        assert submit(url, later).status_code == 401
        again = manage(tmp_path, "revoke", later.split(":")[0])
        assert (again.exit_code, again.stderr) == (1, "There is no such key, or it was revoked before.\n")
    # As if the server had been killed: its file is left over.
    (tmp_path / "server.json").write_text(json.dumps({"url": "http://127.0.0.1:9", "credentials": "a:b", "pid": 1}))
    listed = manage(tmp_path, "list").stdout
    assert "before" in listed
    assert made.split(":")[1] not in listed
    assert manage(tmp_path, "revoke", "nobody").exit_code == 1


def test_the_operators_key(tmp_path: Path) -> None:
    with serving(tmp_path, KEYREEL_ADMIN_KEY="boss:a secret") as (url, shown):
        assert shown == ""
        assert submit(url, "boss:a secret").status_code == 200


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("KEYREEL_ADMIN_KEY", "boss", "KEYREEL_ADMIN_KEY must have the form id:secret."),
        ("KEYREEL_ALLOW_HOSTS", "::1, a b", "KEYREEL_ALLOW_HOSTS: 'a b' is neither a network nor a host name."),
    ],
)
def test_settings_that_cannot_be_read(tmp_path: Path, name: str, value: str, message: str) -> None:
    assert refused("--port", "0", "--data-dir", str(tmp_path), **{name: value}) == message


def test_a_folder_and_a_port_that_are_taken(tmp_path: Path) -> None:
    with serving(tmp_path) as (url, _):
        port = url.rpartition(":")[2]
        assert "is in use by process" in refused("--port", "0", "--data-dir", str(tmp_path))
        assert f"Cannot listen on 127.0.0.1, port {port}" in refused("--port", port, "--data-dir", str(tmp_path / "b"))


def test_what_tls_prints_is_all_that_a_program_needs(tmp_path: Path) -> None:
    install()
    with started(tmp_path / "data", "--tls") as said:
        url, key = address(said)
        assert url.startswith("https://127.0.0.1:")
        (exports,) = re.findall(r"Python +export (.*\n.*)\n", said)
        variables = dict(word.split("=", 1) for word in shlex.split(exports.replace("\\\n", " ")))
        assert variables["FAL_KEY"] == key
        assert run(sys.executable, "-c", PYTHON, **variables) == ["Queued", "499"]

        (config,) = re.findall(r"fal\.config\(.*?\);", said, re.DOTALL)
        (authority,) = re.findall("export NODE_EXTRA_CA_CERTS=(.*)", said)
        (tmp_path / "node_modules").symlink_to(JS / "node_modules")
        (tmp_path / "app.mjs").write_text(NODE.replace("CONFIG", config))
        node = run("node", str(tmp_path / "app.mjs"), NODE_EXTRA_CA_CERTS=authority)
        assert node == ["IN_QUEUE", "499"]

        assert f"curl --cacert {authority} {url}/run/" in said
        health = httpx.get(f"{url}/health", verify=ssl.create_default_context(cafile=authority), trust_env=False)
        assert health.status_code == 200
        assert manage(tmp_path / "data", "create", "another").exit_code == 0
    trusted = Path(authority).read_bytes()
    with started(tmp_path / "data", "--tls"):
        assert Path(authority).read_bytes() == trusted


def run(*command: str, **variables: str) -> list[str]:
    said = subprocess.run(command, env=environment(**variables), capture_output=True, text=True, timeout=PATIENCE)
    assert said.returncode == 0, said.stderr
    return said.stdout.split()
