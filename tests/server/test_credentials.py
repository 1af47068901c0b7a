"""The cache of verified keys, and the key for commands on the same machine."""

import time
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from keyreel.server import credentials
from keyreel.server.credentials import KeyRing
from keyreel.store.records import Key
from keyreel.store.scopes import USER_SCOPES
from tests.server.live import LiveServer


async def test_a_verified_key_is_cached_and_the_local_key_needs_no_lookup(server: LiveServer) -> None:
    class CountingKeys:
        calls = 0

        async def verify(self, *credentials: str) -> Any:
            self.calls += 1
            return server.user.key if credentials == ("a", "right") else None

    keys = CountingKeys()
    ring = KeyRing(keys, server.services.store.sessions, "secret")  # type: ignore[arg-type]
    assert (await ring.verify("local", "secret")) is not None
    assert (await ring.verify("local", "wrong")) is None
    assert (await ring.verify("local", "\udce9")) is None
    assert keys.calls == 2  # a stored key may have the id "local", too
    assert [await ring.verify("a", "right") for _ in range(3)] == [server.user.key] * 3
    assert keys.calls == 3
    ring.forget()
    await ring.verify("a", "right")
    assert await ring.verify("a", "wrong") is None
    assert keys.calls == 5


class ExpiringKeys:
    """Keys that end in `left` seconds. The database may go away."""

    def __init__(self, left: float) -> None:
        self.key = Key("a", "guest", USER_SCOPES, 0.0, None, expires_at=time.time() + left)
        self.is_away = False
        self.calls = 0

    async def verify(self, *_: str) -> Key:
        self.calls += 1
        if self.is_away:
            raise OperationalError("SELECT", {}, OSError())
        return self.key


@pytest.mark.parametrize(("left", "calls"), [(600, 1), (-1, 2)])
async def test_a_cached_key_is_used_until_it_expires(server: LiveServer, left: float, calls: int) -> None:
    keys = ExpiringKeys(left)
    ring = KeyRing(keys, server.services.store.sessions)  # type: ignore[arg-type]
    assert [await ring.verify("a", "right") for _ in range(2)] == [keys.key] * 2
    assert keys.calls == calls


async def test_an_expired_key_does_not_outlive_the_database(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "CACHE_LIFETIME", 0)
    for left in (600, -1):
        keys = ExpiringKeys(left)
        ring = KeyRing(keys, server.services.store.sessions)  # type: ignore[arg-type]
        await ring.verify("a", "right")
        keys.is_away = True
        if left > 0:
            assert await ring.verify("a", "right") == keys.key
        else:
            with pytest.raises(OperationalError):
                await ring.verify("a", "right")
