"""Compares the places in the queue that clients are told with those that the database knew."""

import asyncio
import time
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from keyreel.store import STORE_ERRORS, Store

PERIOD = 0.25
"""Seconds between two looks at the queue."""
STALE = 6.0
"""Seconds by which a place may be old: those after which a gateway no longer trusts its copy, and a read."""


@dataclass
class Places:
    store: Store
    told: list[tuple[str, int, float, float]] = field(default_factory=list)
    looks: list[tuple[float, dict[str, int]]] = field(default_factory=list)

    def tell(self, request_id: str, position: int, asked: float, answered: float) -> None:
        """asked, answered: when a client asked for it and was told (monotonic, in seconds)."""
        self.told.append((request_id, position, asked, answered))

    async def watch(self) -> None:
        """Looks at the queue until it is cancelled."""
        while True:
            with suppress(*STORE_ERRORS):
                asked, queue = time.monotonic(), await self.store.requests.queue()
                self.looks.append((asked, {request_id: place.position for request_id, place in queue.items()}))
            await asyncio.sleep(PERIOD)

    def errors(self) -> list[int]:
        """Returns by how much each told place lies outside of those that the request had shortly before."""
        found = []
        for request_id, position, asked, answered in self.told:
            looks = self._looks_around(asked - STALE, answered)
            if known := [positions[request_id] for _, positions in looks if request_id in positions]:
                found.append(max(min(known) - position, position - max(known), 0))
        return found

    def _looks_around(self, start: float, end: float) -> Sequence[tuple[float, dict[str, int]]]:
        """Returns the looks between two times, with one before and one after."""
        first = bisect_left(self.looks, start, key=_time)
        return self.looks[max(0, first - 1) : bisect_right(self.looks, end, key=_time) + 1]


def _time(look: tuple[float, dict[str, int]]) -> float:
    return look[0]
