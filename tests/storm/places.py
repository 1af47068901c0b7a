"""Compares the places in the queue that clients are told with those that the database knew."""

import asyncio
import time
from dataclasses import dataclass, field

from keyreel.store import STORE_ERRORS, Store

PERIOD = 0.25
"""Seconds between two looks at the queue."""
STALE = 3.0
"""Seconds by which a place may be old."""


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
            try:
                live = await self.store.requests.live()
            except STORE_ERRORS:
                live = []
            positions = {status.id: status.position for status in live if status.position is not None}
            self.looks.append((time.monotonic(), positions))
            await asyncio.sleep(PERIOD)

    def errors(self) -> list[int]:
        """Returns by how much each told place lies outside of those that the request had shortly before."""
        found = []
        for request_id, position, asked, answered in self.told:
            known = [
                positions[request_id]
                for at, positions in self.looks
                if asked - STALE <= at <= answered + PERIOD and request_id in positions
            ]
            if known:
                found.append(max(min(known) - position, position - max(known), 0))
        return found
