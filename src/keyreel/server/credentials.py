"""Who a key belongs to, remembered for a moment: fal's Python client asks ten times a second."""

import hashlib
import time
from collections import OrderedDict
from dataclasses import dataclass
from hmac import compare_digest

from keyreel.store.keys import Keys
from keyreel.store.records import Key

MEMORY = 5.0
"""Seconds after which a key that another process revoked is refused here."""
_CAPACITY = 1024

LOCAL = "local"
"""The id of the key that the server makes at its start for commands on the same machine. It is in no table."""


@dataclass(frozen=True, slots=True)
class _Known:
    key: Key
    until: float


class KeyRing:
    """`local_secret`: the secret of the key named `LOCAL`, if there is one."""

    def __init__(self, keys: Keys, local_secret: str | None = None) -> None:
        self._keys = keys
        self._local_secret = local_secret
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    async def verify(self, key_id: str, secret: str) -> Key | None:
        if key_id == LOCAL and self._local_secret and _equal(secret, self._local_secret):
            return Key(LOCAL, "The command line", True, 0.0, None)
        # The digest, so that no secret stays in memory.
        digest = hashlib.sha256(f"{key_id}:{secret}".encode("utf-8", "replace")).digest()
        known = self._known.get(digest)
        if known and known.until > time.monotonic():
            return known.key
        return await self._ask(key_id, secret, digest)

    async def find(self, key_id: str) -> Key | None:
        """A key that has not been revoked."""
        valid = (key for key in await self._keys.list() if key.id == key_id and key.revoked is None)
        return next(valid, None)

    def forget(self) -> None:
        """A key was changed here: ask again for each."""
        self._known.clear()

    async def _ask(self, key_id: str, secret: str, digest: bytes) -> Key | None:
        key = await self._keys.verify(key_id, secret)
        if key is None:
            self._known.pop(digest, None)
            return None
        self._known[digest] = _Known(key, time.monotonic() + MEMORY)
        self._known.move_to_end(digest)
        if len(self._known) > _CAPACITY:
            self._known.popitem(last=False)
        return key


def _equal(given: str, right: str) -> bool:
    return compare_digest(given.encode("utf-8", "replace"), right.encode())
