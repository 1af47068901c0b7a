import shutil
from pathlib import Path

import pytest

from keyreel.files.disk import Disk, DiskLowError

ROOM = 2**40


def test_what_is_written_must_leave_the_floor_free(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    disk = Disk((tmp_path,), free // 2)
    assert not disk.is_low
    disk.require(free // 4)
    with pytest.raises(DiskLowError, match="almost full"):
        disk.require(free)
    low = Disk((tmp_path,), free + ROOM)
    assert low.is_low
    with pytest.raises(DiskLowError):
        low.require()


def test_without_a_floor_nothing_is_refused(tmp_path: Path) -> None:
    disk = Disk((tmp_path,), 0)
    disk.require(2**63)
    assert not disk.is_low


def test_the_fuller_disk_counts(tmp_path: Path) -> None:
    folders = tmp_path, Path("/dev/shm")  # noqa: S108
    disk = Disk(folders, 1)
    sizes = [shutil.disk_usage(folder).free for folder in folders]
    assert disk.free == pytest.approx(min(sizes), rel=0.1)
