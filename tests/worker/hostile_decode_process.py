"""The decode process, taken over by a file: it tries to reach what is not its own, and reports what it reached."""

import ctypes
import os
import resource
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from keyreel.errors import RequestError
from keyreel.worker import decode_process
from keyreel.worker.messages import Decode, Spooled
from keyreel.worker.spool import pixels_folder

PTRACE_TRACEME = 0
CLONE_NEWUSER = 0x10000000
LIMIT = 1 << 40


async def decode(order: Decode) -> Spooled:
    """Reads from the request's only file which files to look for."""
    ((_, file),) = order.files
    targets = [Path(line) for line in file.path.read_text().splitlines()]
    (pixels_folder(order.folder) / "own").write_text("a file in its own folder")
    raise RequestError.at((), " ".join(reached(targets, file.path, order.folder)), "file_decode_error")


def reached(targets: list[Path], own: Path, folder: Path) -> Iterator[str]:
    """Yields what could be reached. own: a file that may be read."""
    for name, attempt in _attempts(targets, own, folder).items():
        try:
            attempt()
        except (OSError, ValueError):
            continue
        yield name


def _attempts(targets: list[Path], own: Path, folder: Path) -> dict[str, Callable[[], object]]:
    return {
        **{target.name: target.read_bytes for target in targets},
        "passwords": Path("/etc/passwd").read_text,
        "environment": Path(f"/proc/{os.getppid()}/environ").read_bytes,
        "root": lambda: list(Path("/").iterdir()),
        "requests": lambda: list(folder.parent.iterdir()),
        "changed": lambda: own.open("r+b"),
        "truncated": lambda: os.truncate(own, 0),
        "removed": own.unlink,
        "planted": lambda: (folder.parent / "planted").write_text("planted"),
        "link": lambda: (folder / "link").symlink_to("/etc"),
        "mode": lambda: folder.chmod(0o700),
        "socket": lambda: socket.socket(socket.AF_INET),
        "unix": lambda: socket.socket(socket.AF_UNIX),
        "pair": socket.socketpair,
        "program": lambda: subprocess.run(["/bin/true"], check=True),
        "fork": _fork,
        "kill": lambda: os.kill(os.getppid(), 0),
        "trace": lambda: _call("ptrace", PTRACE_TRACEME, 0, 0, 0),
        "limit": lambda: resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT)),
        "namespace": lambda: _call("unshare", CLONE_NEWUSER),
    }


def _fork() -> None:
    if pid := os.fork():
        os.waitpid(pid, 0)
    else:
        os._exit(0)


def _call(name: str, *arguments: int) -> None:
    if getattr(ctypes.CDLL(None), name)(*arguments) != 0:
        raise OSError(name)


if __name__ == "__main__":
    decode_process.main(decode)
