import subprocess
import sys
from pathlib import Path

import pytest

from keyreel.store.lockfile import exclusive_lock
from keyreel.store.records import StoreInUseError

HOLDER = """
import sys
from pathlib import Path
from keyreel.store.lockfile import exclusive_lock

with exclusive_lock(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_a_second_process_is_refused_with_the_id_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "keyreel.db"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(StoreInUseError, match=f"keyreel.db is in use by process {holder.pid}. "):
            _lock(path)
        holder.kill()  # the system releases the lock
    _lock(path)


def test_a_process_that_has_not_written_its_id_yet_is_not_named(tmp_path: Path) -> None:
    path = tmp_path / "keyreel.db"
    with exclusive_lock(path):
        path.with_name("keyreel.db.lock").write_text("")
        with pytest.raises(StoreInUseError, match=r"keyreel\.db is in use by another process\. "):
            _lock(path)


def test_the_lock_is_released_at_the_end_of_the_block(tmp_path: Path) -> None:
    for _ in range(2):
        _lock(tmp_path / "keyreel.db")


def _lock(path: Path) -> None:
    with exclusive_lock(path):
        pass
