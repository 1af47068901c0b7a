"""Contains the process that opens strangers' files: what it may reach is its own request's files, and nothing else.

`python -m keyreel.worker.sandbox` contains itself and prints the layers that held, as `keyreel doctor` shows them.
"""

import ctypes
import json
import os
import resource
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from keyreel.errors import KeyreelError
from keyreel.worker import landlock, seccomp

CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWIPC = 0x10000000, 0x40000000, 0x08000000
CAPABILITY_VERSION = 0x20080522
KEPT_CAPABILITIES = 0b110
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH. Root needs them for a data folder that belongs to somebody else."""
SYSTEM_FILES = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/etc/ld.so.cache",
    "/dev/null",
    "/dev/urandom",
    "/sys/devices/system/cpu",
)
"""What the C library and the interpreter read at any time. None of it is anybody's secret."""
OPEN_FILES = 256
PROBE_TIMEOUT = 60
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Layers:
    """What the kernel offers. files: the version of Landlock, or 0. calls: seccomp. namespaces: an empty network."""

    files: int
    calls: bool
    namespaces: bool

    def describe(self) -> str:
        """Returns one line for the operator."""
        return ", ".join(
            (
                f"files by Landlock {self.files}" if self.files else "files not contained (no Landlock)",
                "system calls by seccomp" if self.calls else "system calls not contained (no seccomp)",
                "network by namespace" if self.namespaces else "no network namespace",
            )
        )


def enter_namespaces() -> bool:
    """Moves this process to a network of its own, without interfaces, and gives up privileges. Call it at the start.

    Returns whether the kernel allows it. Root keeps its user namespace: in another one it could not read files that
    belong to somebody else.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    flags = CLONE_NEWNET | CLONE_NEWIPC
    failed = libc.unshare(flags) and libc.unshare(flags | CLONE_NEWUSER)
    _drop_capabilities(libc)
    return not failed


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What contains a copy of this process. code: the folders from which it may load modules."""

    layers: Layers
    code: tuple[Path, ...]

    @classmethod
    def prepare(cls) -> Self:
        """Enters namespaces and finds out what the kernel offers. Call it when all modules are imported."""
        layers = Layers(landlock.version(), seccomp.is_offered(), enter_namespaces())
        return cls(layers, tuple(_code()))

    def confine(self, files: Iterable[Path], folder: Path) -> None:
        """Lets this thread, and those that it starts, read `files` and code and write to `folder`, and little else.

        For good. Raises OSError if one of the layers does not hold.
        """
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
        if self.layers.files:
            landlock.restrict(read=(*files, *self.code), write=(folder,))
        if self.layers.calls:
            seccomp.install()


def probe() -> Layers:
    """Returns the layers that hold when a process contains itself."""
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", __name__], capture_output=True, text=True, timeout=PROBE_TIMEOUT, check=True
    )
    return Layers(**json.loads(done.stdout))


def require(layers: Layers) -> None:
    """Raises KeyreelError unless files and system calls are contained. Without calls for it, there is no network."""
    if not (layers.files and layers.calls):
        raise KeyreelError(
            f"KEYREEL_SANDBOX=required, but this system cannot contain the decoder: {layers.describe()}. It takes "
            "Linux 5.13 or later on x86-64 or ARM64, with Landlock, and a container runtime that allows both."
        )


def _code() -> Iterator[Path]:
    """Yields the folders from which Python loads modules of the packages in use, and what the system needs."""
    yield from map(Path, SYSTEM_FILES)
    yield from (Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))
    for name, module in sys.modules.items():
        if "." not in name:
            yield from map(Path, getattr(module, "__path__", ()))


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    header = struct.pack("=Ii", CAPABILITY_VERSION, 0)
    sets = ctypes.create_string_buffer(24)
    libc.capget(header, sets)
    _, permitted, _, _, _, _ = struct.unpack("=6I", sets.raw)
    kept = permitted & KEPT_CAPABILITIES
    libc.capset(header, struct.pack("=6I", kept, kept, 0, 0, 0, 0))


def _main() -> None:
    sandbox = Sandbox.prepare()
    sandbox.confine((), Path(os.devnull))
    sys.stdout.write(json.dumps(asdict(sandbox.layers)))


if __name__ == "__main__":
    _main()
