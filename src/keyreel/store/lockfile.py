"""One process at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keyreel.store.records import StoreInUseError


@contextmanager
def only_process(path: Path) -> Iterator[None]:
    """Holds `path`.lock while the store is open; the system lets go of it when the process dies, however it dies."""
    with path.with_name(f"{path.name}.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise StoreInUseError(
                f"{path} is in use by process {lock.read() or '(just starting)'}. "
                "An SQLite file belongs to one process; several share a PostgreSQL database."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
