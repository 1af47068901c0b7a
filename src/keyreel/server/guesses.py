"""Slows down those who guess at keys, per address and key, without keeping out the owner of a key at another address.

Each process counts for itself, in memory. A secret that Keyreel makes cannot be guessed at any rate; this is for the
shorter ones that operators choose, and keeps guesses from the database.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from math import ceil

from fastapi import HTTPException

PER_KEY = 10
"""Wrong secrets that one address may send for one key id in a minute. More of them together lengthen the wait."""
PER_ADDRESS = 100
"""Wrong keys that one address may send in a minute."""
_CAPACITY = 10_000
"""Addresses, and pairs of address and key, that are remembered."""
_MINUTE = 60.0


@dataclass(slots=True)
class _Buckets:
    """A bucket per name, which holds `size` tokens and is filled in a minute. Kept as the time when it is full."""

    size: int
    clock: Callable[[], float]
    _full_at: OrderedDict[Hashable, float] = field(default_factory=OrderedDict)

    def wait(self, name: Hashable) -> float:
        """Returns the seconds until the bucket has a token."""
        return self._full_at.get(name, 0.0) - self.clock() - (self.size - 1) * _MINUTE / self.size

    def take(self, name: Hashable) -> None:
        """Takes a token. Calls at the same time may take more than there are, which are then owed."""
        now = self.clock()
        self._full_at[name] = max(now, self._full_at.get(name, 0.0)) + _MINUTE / self.size
        self._full_at.move_to_end(name)
        if len(self._full_at) > _CAPACITY:
            self._full_at.popitem(last=False)


class Guesses:
    """What wrong keys came from which client. `client`: see keyreel.net.clients."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._pairs = _Buckets(PER_KEY, clock)
        self._clients = _Buckets(PER_ADDRESS, clock)
        self._right: OrderedDict[Hashable, None] = OrderedDict()

    def check(self, client: str, key_id: str) -> None:
        """Answers 429 if the client may not try this key id now.

        Whoever has used a key at an address can go on while others there send wrong ones.
        """
        pair = (client, key_id)
        wait = max(self._pairs.wait(pair), 0.0 if pair in self._right else self._clients.wait(client))
        if wait > 0:
            message = "Too many wrong keys came from your address. Try again later."
            raise HTTPException(429, message, {"Retry-After": str(ceil(wait))})

    def was_right(self, client: str, key_id: str) -> None:
        self._right[client, key_id] = None
        self._right.move_to_end((client, key_id))
        if len(self._right) > _CAPACITY:
            self._right.popitem(last=False)

    def was_wrong(self, client: str, key_id: str) -> None:
        self._pairs.take((client, key_id))
        self._clients.take(client)
