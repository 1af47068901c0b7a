"""A real S3 server for the tests: SeaweedFS, from its wheel."""

import glob
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

BUCKET = "bucket"
TIMEOUT = 60.0
"""Seconds that a start may take."""
_PARTS = ("master", "volume", "filer", "s3")
_OPTIONS = (
    "-s3",
    "-s3.iam=false",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    "-iam=false",
    "-ip=127.0.0.1",
    "-ip.bind=127.0.0.1",
    "-master.telemetry=false",
    "-master.volumeSizeLimitMB=64",
    "-volume.preStopSeconds=0",
)


def find_weed() -> str | None:
    """Returns SeaweedFS's program: its wheel puts it beside Python."""
    return shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@dataclass
class S3Server:
    """A server with one bucket, for everybody on this machine. `kill` ends it as a crash does."""

    program: str
    folder: Path
    ports: dict[str, int] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        return self.ports["s3.port"]

    def start(self) -> None:
        """Returns when objects can be written."""
        ports = [f"-{name}={number}" for name, number in self.ports.items()]
        command = [self.program, "-logtostderr=true", "server", f"-dir={self.folder}", *_OPTIONS, *ports]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        end = time.monotonic() + TIMEOUT
        while not self._is_writable():
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < end, "the S3 server did not start"
            time.sleep(0.1)

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()

    def _is_writable(self) -> bool:
        url = f"http://127.0.0.1:{self.port}/{BUCKET}"
        try:
            httpx.put(url, trust_env=False)  # 409 when it exists
            return httpx.put(f"{url}/probe", content=b"x", trust_env=False).is_success
        except httpx.HTTPError:
            return False


@contextmanager
def restartable_s3(program: str) -> Iterator[S3Server]:
    """Starts a server. It and its folder are removed at the end of the block."""
    names = [f"{part}.{port}" for part in _PARTS for port in ("port", "port.grpc")]
    with tempfile.TemporaryDirectory(prefix="s3-") as name:
        server = S3Server(program, Path(name), dict(zip(names, free_ports(len(names)), strict=True)))
        try:
            server.start()
            yield server
        finally:
            server.kill()
            for number in server.ports.values():  # a killed server leaves them
                for path in glob.glob(f"/tmp/seaweedfs-*-{number}.sock"):  # noqa: PTH207, S108
                    os.unlink(path)  # noqa: PTH108


def free_ports(number: int) -> list[int]:
    """Returns ports that nobody listens on at the moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [each.getsockname()[1] for each in sockets]
