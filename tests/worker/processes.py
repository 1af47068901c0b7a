"""Processes that this one, or another one, has started."""

import os
from pathlib import Path


def children(module: str, parent: int | None = None) -> list[int]:
    """Those that run this module."""
    tasks = Path(f"/proc/{parent or os.getpid()}/task").iterdir()
    pids = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
    return [pid for pid in pids if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()]
