"""A file that an attempt writes again and again, and that must not outlive it."""

import asyncio

from keyreel.store import STORE_ERRORS
from keyreel.store.files import Files
from keyreel.store.records import File, NewFile


class AttemptFile:
    """The row of the file, added when it is first needed. A caller that is cancelled meanwhile loses no row."""

    def __init__(self, files: Files, new: NewFile) -> None:
        self._files = files
        self._new = new
        self._adding: asyncio.Task[File] | None = None

    async def get(self) -> File:
        """Returns the row, added if there is none. Raises STORE_ERRORS; the next call tries again."""
        if self._adding is None or (self._adding.done() and self._adding.exception()):
            self._adding = asyncio.create_task(self._files.add(self._new))
        return await asyncio.shield(self._adding)

    async def added(self) -> File | None:
        """Returns the row if one was added. Waits while it is being added."""
        try:
            return await self._adding if self._adding else None
        except STORE_ERRORS:
            return None
