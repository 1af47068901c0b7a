"""`keyreel serve` as an operator starts it: in another process, with a model on the CPU."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fal_client
import httpx
import pytest
from fal_client import client as hosts

TIMEOUT = 60


@dataclass(frozen=True, slots=True)
class Served:
    """A running server. `client` is fal's Python client, pointed at it."""

    url: str
    key: str
    client: fal_client.SyncClient

    def make(self, endpoint: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Runs a request through the queue. Returns its output."""
        output: dict[str, Any] = self.client.subscribe(endpoint, arguments, interval=0.05)
        return output

    def video(self, endpoint: str, arguments: dict[str, Any]) -> bytes:
        """Runs a request. Returns its video."""
        return download(self.make(endpoint, arguments))

    def refusal(self, endpoint: str, arguments: dict[str, Any]) -> tuple[int, list[dict[str, Any]]]:
        """Runs a request that fails. Returns the status code and the problems."""
        with pytest.raises(fal_client.FalClientHTTPError) as caught:
            self.make(endpoint, arguments)
        return caught.value.response.status_code, caught.value.response.json()["detail"]

    def log(self, endpoint: str, arguments: dict[str, Any]) -> list[str]:
        """Runs a request. Returns the messages of its log."""
        handle = self.client.submit(endpoint, arguments)
        handle.get(interval=0.05)
        status = handle.status(with_logs=True)
        assert isinstance(status, fal_client.Completed)
        return [line["message"] for line in status.logs or ()]


def download(output: dict[str, Any]) -> bytes:
    return httpx.get(output["video"]["url"], trust_env=False).content


@contextmanager
def served(model: Path, folder: Path, **settings: str) -> Iterator[Served]:
    """Runs a server and shuts it down cleanly. `settings` are environment variables without their prefix."""
    variables = {f"KEYREEL_{name.upper()}": value for name, value in settings.items()}
    options = {"--port": "0", "--data-dir": str(folder), "--model": str(model), "--device": "cpu"}
    process = subprocess.Popen(
        [sys.executable, "-m", "keyreel", "serve", *(part for option in options.items() for part in option)],
        env=os.environ | {"KEYREEL_CACHE_DIR": str(folder / "cache")} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process, pytest.MonkeyPatch.context() as patch:
        try:
            assert process.stdout
            assert process.stderr
            line = next((line for line in process.stdout if " is at " in line), "")
            assert line, process.stderr.read()
            url, _, key = line.split(" is at ")[1].strip().partition("/#key=")
            patch.setattr(hosts, "QUEUE_URL_FORMAT", f"{url}/queue/")
            patch.setattr(hosts, "RUN_URL_FORMAT", f"{url}/run/")
            client = fal_client.SyncClient(key=key)
            yield Served(url, key, client)
            client._client.close()
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT) == 0, process.stderr.read()
        finally:
            process.kill()
