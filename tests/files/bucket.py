"""A bucket on a real S3 server, SeaweedFS, on this machine."""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

PROGRAM = Path(sys.executable).with_name("weed")
URL = "s3://keyreel/files"
PATIENCE = 60.0
"""Seconds that the server may take to start."""
_PORTS = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
_OPTIONS = (
    "-ip=127.0.0.1",
    "-ip.bind=127.0.0.1",
    "-volume.max=20",
    "-master.volumeSizeLimitMB=64",
    "-s3.port.iceberg=0",
)
_KEY = {"accessKey": "key", "secretKey": "secret"}


@contextmanager
def running_bucket(folder: Path) -> Iterator[dict[str, str]]:
    """Runs the server, with its data in `folder`. Yields the variables with which obstore finds the bucket at `URL`."""
    folder.mkdir(parents=True, exist_ok=True)
    access = folder / "access.json"
    access.write_text(json.dumps({"identities": [{"name": "all", "credentials": [_KEY], "actions": ["Admin"]}]}))
    *ports, s3 = _free_ports(len(_PORTS) + 3)
    options = [f"-{name}={port}" for name, port in zip((*_PORTS, "s3.port.grpc", "s3.port.lance"), ports, strict=True)]
    command = [
        str(PROGRAM),
        "server",
        f"-dir={folder}",
        f"-s3.config={access}",
        "-s3",
        f"-s3.port={s3}",
        *options,
        *_OPTIONS,
    ]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, cwd=folder) as server:
        try:
            endpoint = f"http://127.0.0.1:{s3}"
            _wait_for(server, f"{endpoint}/healthz", folder / "log")
            yield {
                "AWS_ENDPOINT": endpoint,
                "AWS_ACCESS_KEY_ID": _KEY["accessKey"],
                "AWS_SECRET_ACCESS_KEY": _KEY["secretKey"],
                "AWS_REGION": "us-east-1",
                "AWS_ALLOW_HTTP": "true",
            }
        finally:
            server.kill()


def is_installed() -> bool:
    return shutil.which(PROGRAM) is not None


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [each.getsockname()[1] for each in sockets]


def _wait_for(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(url, trust_env=False).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise RuntimeError(f"SeaweedFS did not start: {log.read_text()[-2000:]}")
