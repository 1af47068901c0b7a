"""`keyreel worker` in another process. `tests/server/test_fleet.py` runs it with a gateway on PostgreSQL."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from tests.cli.servers import TIMEOUT
from tests.server.live import ENDPOINT, INPUT

pytestmark = pytest.mark.slow


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    """What a fleet needs, for a single worker whose database is a file."""
    return {
        "KEYREEL_DATA_DIR": str(tmp_path),
        "KEYREEL_DATABASE_URL": f"sqlite:///{tmp_path / 'keyreel.db'}",
        "KEYREEL_SECRET": "a secret that all processes share",
        "KEYREEL_PUBLIC_URL": "http://keyreel.example",
        "KEYREEL_OBJECT_STORE": str(tmp_path / "objects"),
    }


def command(*arguments: str, device: str = "cpu") -> Sequence[str]:
    return (sys.executable, "-m", "keyreel", "worker", "--device", device, *arguments)


def error(settings: dict[str, str], *arguments: str, device: str = "cpu") -> str:
    """Returns the last line that a worker prints that ends with an error."""
    environment = os.environ | settings
    done = subprocess.run(
        command(*arguments, device=device), env=environment, capture_output=True, text=True, timeout=3 * TIMEOUT
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


@pytest.fixture
def worker(settings: dict[str, str], checkpoint: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A worker and the URL that it printed."""
    arguments = command("--model", str(checkpoint), "--port", "0")
    with subprocess.Popen(arguments, env=os.environ | settings, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process, re.findall(r"http://127\.0\.0\.1:\d+", process.stdout.readline())[0]
        finally:
            process.kill()


def test_a_model_that_the_fleet_does_not_have_is_named(settings: dict[str, str]) -> None:
    assert error(settings | {"KEYREEL_MODELS": "demo,other"}, "--model", "mine") == (
        "KEYREEL_MODELS does not name the model mine. It names demo, other."
    )


def test_missing_settings_are_named(settings: dict[str, str]) -> None:
    del settings["KEYREEL_DATABASE_URL"], settings["KEYREEL_PUBLIC_URL"]
    expected = "A fleet needs the same KEYREEL_DATABASE_URL, KEYREEL_PUBLIC_URL in every process. See docs/fleet.md."
    assert error(settings, "--port", "0") == expected


def test_a_port_in_use_is_named(settings: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        expected = f"Cannot listen on 127.0.0.1, port {port}: Address already in use"
        assert error(settings, "--port", str(port)).startswith(expected)


def test_an_unknown_model_ends_the_worker(settings: dict[str, str]) -> None:
    assert "'nothing'" in error(settings, "--port", "0", "--model", "nothing")


def test_devices_that_cannot_share_the_model_end_the_worker(settings: dict[str, str], checkpoint: Path) -> None:
    printed = error(settings, "--port", "0", "--model", str(checkpoint), device="cpu,cpu,cpu")
    assert printed.startswith("The model has 2 attention heads, so at most 2 devices can share it.")


def test_a_worker_serves_its_health_but_not_the_api_and_stops_while_it_loads(
    worker: tuple[subprocess.Popen[str], str],
) -> None:
    process, url = worker
    with httpx.Client(base_url=url, timeout=TIMEOUT, trust_env=False) as http:
        assert http.get("/health/live").json() == {"status": "ok"}
        assert http.post(f"/run/{ENDPOINT}", json=INPUT).status_code == 404
    process.send_signal(signal.SIGTERM)
    assert process.wait(TIMEOUT) == 0
