"""Finds the processes that a process has started, and measures them."""

import os
from collections.abc import Iterator
from pathlib import Path


def children(module: str, parent: int | None = None) -> list[int]:
    """Returns the ids of the child processes of `parent` (default: this process) that run `module`."""
    tasks = Path(f"/proc/{parent or os.getpid()}/task").iterdir()
    pids = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
    return [pid for pid in pids if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()]


def server_processes(pid: int, *modules: str) -> Iterator[tuple[str, int]]:
    """Yields the server, and each child process that runs one of `modules` by the name of its own module."""
    yield "server", pid
    for child in sorted({child for module in modules for child in children(module, pid)}):
        words = Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0")
        yield next(word for word in words if word.startswith(modules)), child


def memory(pid: int) -> int:
    """Returns the proportional set size in bytes: a page that several processes share counts once in their sum."""
    return _mapped(pid, "Pss")


def written_memory(pid: int) -> int:
    """Returns the bytes of `memory` that the processes have written.

    A process's share of the pages of programs and libraries depends on who else on the machine uses them.
    """
    return _mapped(pid, "Pss_Anon")


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def handles(pid: int) -> int:
    """Returns the number of open files, sockets and pipes."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def processor_seconds(pid: int) -> float:
    """Returns the processor time that the process has used, without that of its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _mapped(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])
