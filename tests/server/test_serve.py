"""`keyreel serve` and `keyreel keys`, as real processes."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import typer
from typer.testing import CliRunner, Result

from keyreel.cli.keys import keys
from keyreel.cli.serve import serve
from tests.server.live import ENDPOINT

SERVE = "import typer; from keyreel.cli.serve import serve; typer.run(serve)"
PATIENCE = 20


@contextmanager
def serving(folder: Path, **variables: str) -> Iterator[tuple[str, str]]:
    """The server's URL and the credentials that it printed. Ended by SIGTERM, in good order."""
    command = [sys.executable, "-c", SERVE, "--port", "0", "--no-worker", "--data-dir", str(folder)]
    environment = os.environ | variables
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        try:
            line = next((line for line in process.stdout if " is at " in line), "")
            assert line, process.stderr.read()
            url, _, key = line.split(" is at ")[1].strip().partition("/#key=")
            yield url, key
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0, process.stderr.read()
        finally:
            process.kill()


def manage(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(keys, [*arguments, "--data-dir", str(folder)])


def refused(*arguments: str) -> str:
    """What `keyreel serve` says when it does not start."""
    application = typer.Typer()
    application.command()(serve)
    result = CliRunner().invoke(application, ["--no-worker", *arguments])
    assert result.exit_code == 1, result.exception
    return result.stderr.strip()


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
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(name, value)
        assert refused("--port", "0", "--data-dir", str(tmp_path)) == message


def test_a_folder_and_a_port_that_are_taken(tmp_path: Path) -> None:
    with serving(tmp_path) as (url, _):
        port = url.rpartition(":")[2]
        assert "is in use by process" in refused("--port", "0", "--data-dir", str(tmp_path))
        assert f"Cannot listen on 127.0.0.1, port {port}" in refused("--port", port, "--data-dir", str(tmp_path / "b"))
