"""The cache of verified keys, and the key for commands on the same machine."""

from typing import Any

from keyreel.server.credentials import KeyRing
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
