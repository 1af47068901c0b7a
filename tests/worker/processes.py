"""Finds the processes that a process has started."""

import os
from pathlib import Path


def children(module: str, parent: int | None = None) -> list[int]:
    """Returns the ids of the child processes of `parent` (default: this process) that run `module`."""
    tasks = Path(f"/proc/{parent or os.getpid()}/task").iterdir()
    pids = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
    return [pid for pid in pids if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()]
