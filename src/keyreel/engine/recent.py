"""A cache of what was used last, limited in bytes."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

V = TypeVar("V")


class Recent(Generic[V]):
    """Keeps values up to `max_bytes` together. Those that were not used for longest go first.

    size: returns a value's bytes.
    """

    def __init__(self, max_bytes: int, size: Callable[[V], int]) -> None:
        self._max_bytes = max_bytes
        self._size = size
        self._values: OrderedDict[str, V] = OrderedDict()
        self._bytes = 0

    def get(self, key: str) -> V | None:
        if key in self._values:
            self._values.move_to_end(key)
        return self._values.get(key)

    def has_room(self, value: V) -> bool:
        """Returns whether the value can be kept at all."""
        return self._size(value) <= self._max_bytes

    def put(self, key: str, value: V) -> None:
        """Keeps a value under a new key, if it is not larger than the limit by itself."""
        if not self.has_room(value):
            return
        self._values[key] = value
        self._bytes += self._size(value)
        while self._bytes > self._max_bytes:
            self._bytes -= self._size(self._values.popitem(last=False)[1])
