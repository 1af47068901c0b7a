"""Verifies API keys. Verified keys are cached for a few seconds: fal's Python client polls ten times a second."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hmac import compare_digest

from keyreel.files.links import TokenClaims
from keyreel.store import STORE_ERRORS
from keyreel.store.keys import Keys
from keyreel.store.records import Key
from keyreel.store.scopes import ALL_SCOPES
from keyreel.store.sessions import Sessions

CACHE_LIFETIME = 5.0
"""Seconds for which a verified key is cached. A key that another process revokes stays valid here for this long."""
_CACHE_CAPACITY = 1024

LOCAL = "local"
"""The id of the key that the server creates at its start for commands on the same machine. It is in no table."""


@dataclass(frozen=True, slots=True)
class _CachedKey:
    key: Key
    read_again: float
    """Seconds, by the monotonic clock."""

    def has_expired(self) -> bool:
        return self.key.expires_at is not None and self.key.expires_at <= time.time()


class KeyRing:
    """Finds and verifies keys, also by session. `local_secret` is the secret of the key `LOCAL`, if there is one."""

    def __init__(self, keys: Keys, sessions: Sessions, local_secret: str | None = None) -> None:
        self._keys = keys
        self._sessions = sessions
        self._local_secret = local_secret
        self._cache: OrderedDict[bytes, _CachedKey] = OrderedDict()

    async def verify(self, key_id: str, secret: str) -> Key | None:
        """Returns the key, or None when it is unknown, revoked or expired, or the secret is wrong."""
        if key_id == LOCAL and self._local_secret and _equal(secret, self._local_secret):
            return Key(LOCAL, "The command line", ALL_SCOPES, 0.0, None)
        # The cache is keyed by a digest, so that no secret stays in memory.
        digest = hashlib.sha256(f"{key_id}:{secret}".encode("utf-8", "replace")).digest()
        return await self._cached(digest, lambda: self._keys.verify(key_id, secret))

    async def find(self, key_id: str) -> Key | None:
        """Returns the key, or None when it is unknown, revoked or expired."""
        return await self._cached(key_id.encode("utf-8", "replace"), lambda: self._keys.get(key_id))

    async def find_by_token(self, claims: TokenClaims) -> Key | None:
        """Returns the key of a token, or None when it is unknown, revoked, expired or was replaced by another one."""
        key = await self.find(claims.key_id)
        return key if key and claims.stands_for(key) else None

    async def find_by_session(self, session_id: str, claims: TokenClaims) -> Key | None:
        """Returns the key of a session, or None when the session has ended or the key is not valid any more."""

        async def read() -> Key | None:
            if await self._sessions.has_ended(session_id):
                return None
            key = await self._keys.get(claims.key_id)
            return key if key and claims.stands_for(key) else None

        return await self._cached(session_id.encode(), read)

    def forget(self) -> None:
        """Empties the cache. Call it after this process has changed a key."""
        self._cache.clear()

    async def _cached(self, entry: bytes, read: Callable[[], Awaitable[Key | None]]) -> Key | None:
        """Returns the key under `entry`, read again when it is old. While the database is away, old keys stay valid."""
        cached = self._cache.get(entry)
        if cached and cached.read_again > time.monotonic() and not cached.has_expired():
            return cached.key
        try:
            key = await read()
        except STORE_ERRORS:
            if cached is None or cached.has_expired():
                raise
            return cached.key
        if key is None:
            self._cache.pop(entry, None)
            return None
        self._cache[entry] = _CachedKey(key, time.monotonic() + CACHE_LIFETIME)
        self._cache.move_to_end(entry)
        if len(self._cache) > _CACHE_CAPACITY:
            self._cache.popitem(last=False)
        return key


def _equal(given: str, expected: str) -> bool:
    return compare_digest(given.encode("utf-8", "replace"), expected.encode())
