"""A lock file that lets one process at a time open the store."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keyreel.store.records import StoreInUseError


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Locks `path`.lock during the block. The system releases the lock when the process dies.

    Raises StoreInUseError when another process holds the lock.
    """
    with path.with_name(f"{path.name}.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            process_id = lock.read()  # empty if the other process has not written it yet
            raise StoreInUseError(
                f"{path} is in use by {f'process {process_id}' if process_id else 'another process'}. "
                "Only one process at a time can use an SQLite file; several can share a PostgreSQL database."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
