"""A cache outside the tree for what tests install from the registries."""

import fcntl
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path


def cached(name: str, versions: Path, install: Callable[[Path], None]) -> Path:
    """Returns a folder that `install` filled. The file with the versions names it, so equal ones are installed once."""
    digest = sha256(versions.read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "keyreel-tests"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"{name}-{digest}"
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes may start at once
        if not folder.is_dir():
            # Under another name, so that an installation which was stopped halfway is not taken for complete.
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            install(partial)
            partial.rename(folder)
    return folder
