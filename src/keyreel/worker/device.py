"""Who has the device: one attempt at a time."""

import asyncio
from heapq import heappop, heappush
from typing import Generic, TypeVar

T = TypeVar("T")


class DeviceLock(Generic[T]):
    """A lock that goes to the waiter with the lowest priority number, and among equals to the one that came first.

    holder: who has it.
    """

    def __init__(self) -> None:
        self.holder: T | None = None
        self._arrivals = 0
        self._waiting: list[tuple[int, int, T, asyncio.Future[None]]] = []

    async def acquire(self, holder: T, priority: int) -> None:
        if self.holder is None:
            self.holder = holder
            return
        self._arrivals += 1
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heappush(self._waiting, (priority, self._arrivals, holder, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # the lock came together with the cancellation
                self.release()
            raise

    def release(self) -> None:
        self.holder = None
        while self._waiting and self.holder is None:
            _, _, holder, turn = heappop(self._waiting)
            if not turn.done():
                self.holder = holder
                turn.set_result(None)
