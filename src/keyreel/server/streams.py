"""Limits how many streams of events a key may have open."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from fastapi import HTTPException

RETRY_AFTER = "5"
"""Seconds after which a refused client may try again."""


@dataclass(slots=True)
class Streams:
    """The streams that are open in this process."""

    per_key: int
    _open: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def open(self, key_id: str) -> Iterator[None]:
        """Counts a stream as open during the block. Answers 429 if the key has no room for it."""
        if self._open[key_id] >= self.per_key:
            message = f"Your key has {self.per_key} streams open, as many as it may. Close one, or poll the status."
            raise HTTPException(429, message, {"Retry-After": RETRY_AFTER})
        self._open[key_id] += 1
        try:
            yield
        finally:
            self._open[key_id] -= 1
            if not self._open[key_id]:
                del self._open[key_id]
