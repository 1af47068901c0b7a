"""Reads of single rows that share statements: however many clients poll, the database sees a few of them a second."""

import asyncio
import time
from collections.abc import Collection

from keyreel.store.records import Status
from keyreel.store.requests import Requests
from keyreel.worker.waiting import start_shared

PAUSE = 0.05
"""Seconds between two reads. Who asks meanwhile waits for the next one: the rate does not depend on the clients."""


class SharedReads:
    """Reads statuses, those of all who ask at the same time in one statement.

    Each answer was read after its caller asked, so two callers who ask one after the other, even in different
    processes, never see a request go back.
    """

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._turn = asyncio.Lock()
        self._free_at = 0.0
        self._next: tuple[set[str], asyncio.Task[dict[str, Status]]] | None = None

    async def status(self, request_id: str) -> Status | None:
        """Returns the status without its position, or None if the request does not exist or has expired."""
        ids, read = self._next = self._next or self._begin()
        ids.add(request_id)
        # Shielded: others wait for the same read.
        return (await asyncio.shield(read)).get(request_id)

    def _begin(self) -> tuple[set[str], asyncio.Task[dict[str, Status]]]:
        ids: set[str] = set()
        return ids, start_shared(self._read(ids))

    async def _read(self, ids: Collection[str]) -> dict[str, Status]:
        async with self._turn:
            await asyncio.sleep(self._free_at - time.monotonic())
            # From here on, who asks needs a later read.
            self._next = None
            try:
                return await self._requests.statuses(ids)
            finally:
                self._free_at = time.monotonic() + PAUSE
