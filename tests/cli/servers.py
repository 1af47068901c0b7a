"""`keyreel serve` without workers, in another process."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from typer.testing import CliRunner, Result

from keyreel.cli.keys import keys
from tests.server.live import ENDPOINT

SERVE = "import typer; from keyreel.cli.serve import serve; typer.run(serve)"
TIMEOUT = 60


@contextmanager
def running_serve(folder: Path, *options: str, **variables: str) -> Iterator[str]:
    """Runs the server. Yields what it prints at its start. Ends it with SIGTERM and checks its exit status."""
    command = [sys.executable, "-c", SERVE, "--port", "0", "--no-worker", "--data-dir", str(folder), *options]
    environment = os.environ | variables
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        try:
            printed = "".join(_through(process.stdout, "Its uploads" if "--tls" in options else "REST_URL"))
            assert " is at " in printed, process.stderr.read()
            yield printed
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT) == 0, process.stderr.read()
        finally:
            process.kill()


@contextmanager
def serving(folder: Path, **variables: str) -> Iterator[tuple[str, str]]:
    """Runs the server. Yields its URL and the credentials that it printed."""
    with running_serve(folder, **variables) as printed:
        yield printed_address(printed)


def _through(lines: Iterable[str], last: str) -> Iterator[str]:
    """Yields the lines up to the first one that contains `last`."""
    for line in lines:
        yield line
        if last in line:
            return


def printed_address(printed: str) -> tuple[str, str]:
    """Returns the URL and the credentials; those are empty when no key was created."""
    (shown,) = re.findall(" is at (.*)", printed)
    url, _, key = shown.partition("/#key=")
    return url, key


def manage_keys(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(keys, [*arguments, "--data-dir", str(folder)])


def start_error(*arguments: str, **variables: str) -> str:
    """Returns the error of a `keyreel serve` that does not start."""
    command = [sys.executable, "-c", SERVE, "--no-worker", *arguments]
    environment = os.environ | variables
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 1, done.stderr
    return done.stderr.strip()


def submit(url: str, credentials: str) -> httpx.Response:
    headers = {"Authorization": f"Key {credentials}"}
    return httpx.post(f"{url}/queue/{ENDPOINT}", json={"prompt": "a fox"}, headers=headers, trust_env=False)
