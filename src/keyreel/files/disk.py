"""The free space that uploads and submits must leave on the disk, so that what was accepted can be finished."""

import shutil
from dataclasses import dataclass
from math import inf
from pathlib import Path

from keyreel.errors import KeyreelError


class DiskLowError(KeyreelError):
    """Too little of the disk would stay free."""

    def __init__(self) -> None:
        super().__init__(
            "The server's disk is almost full. It takes nothing new until there is room: delete requests with their "
            "videos, or ask the operator."
        )


@dataclass(frozen=True, slots=True)
class Disk:
    """The disks of `folders`, on each of which `floor` bytes stay free."""

    folders: tuple[Path, ...]
    floor: int

    @property
    def free(self) -> int:
        """The free bytes of the fuller disk."""
        return min(shutil.disk_usage(folder).free for folder in self.folders)

    @property
    def room(self) -> float:
        """The bytes that may still be written. Negative when the disk is low."""
        return self.free - self.floor if self.floor else inf

    @property
    def is_low(self) -> bool:
        return self.room < 0

    def require(self, size: int = 0) -> None:
        """Raises DiskLowError unless `size` bytes may be written."""
        if size > self.room:
            raise DiskLowError


ANY_DISK = Disk((), 0)
"""A disk that is never low."""
