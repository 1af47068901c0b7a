from sqlalchemy import select

from keyreel.fal.outcomes import CANCELLED
from keyreel.store import Store
from keyreel.store.records import LeaseStatus, State
from keyreel.store.tables import api_key
from tests.store.conftest import Clock
from tests.store.steps import claim, status, submit


async def test_a_key_is_verified_by_its_own_secret_only(store: Store) -> None:
    one, other = await store.keys.create("one"), await store.keys.create("other", admin=True)
    assert await store.keys.verify(one.key.id, one.secret) == one.key
    assert await store.keys.verify(other.key.id, other.secret) == other.key
    assert (one.key.admin, other.key.admin) == (False, True)
    for key_id, secret in [(one.key.id, other.secret), ("nobody", one.secret), (one.key.id, ""), ("\0", "\ud83d")]:
        assert await store.keys.verify(key_id, secret) is None


async def test_the_secret_is_not_stored(store: Store) -> None:
    new = await store.keys.create("one")
    async with store.database.read() as connection:
        row = (await connection.execute(select(api_key))).one()
    assert len(bytes.fromhex(new.secret)) == 32
    assert len(row.secret_hash) == 32
    assert bytes.fromhex(new.secret) != row.secret_hash
    assert new.secret not in str(row)
    assert new.secret not in repr(new)


async def test_a_revoked_key_is_not_verified(store: Store, clock: Clock) -> None:
    new = await store.keys.create("one")
    await clock.advance(5)
    assert await store.keys.revoke(new.key.id)
    assert not await store.keys.revoke(new.key.id)
    assert not await store.keys.revoke("nobody")
    assert await store.keys.verify(new.key.id, new.secret) is None
    [listed] = await store.keys.list()
    assert (listed.name, listed.created, listed.revoked) == ("one", Clock.start, Clock.start + 5)


async def test_putting_a_key_again_replaces_its_secret(store: Store) -> None:
    await store.keys.put("operator", "first secret", "from the environment", admin=True)
    await store.keys.put("operator", "second secret", "from the environment", admin=True)
    assert await store.keys.verify("operator", "first secret") is None
    found = await store.keys.verify("operator", "second secret")
    assert found is not None
    assert found.admin
    assert len(await store.keys.list()) == 1


async def test_a_revoked_keys_requests_are_cancelled(store: Store) -> None:
    new = await store.keys.create("one")
    running, waiting, others = [await submit(store, key_id=key) for key in (new.key.id, new.key.id, "another")]
    lease = await claim(store)
    cancelled = store.database.changes.cancel_of(running)
    assert await store.keys.revoke(new.key.id)
    assert (await status(store, waiting)).outcome == CANCELLED
    assert await store.queue.heartbeat(lease) is LeaseStatus.CANCELLED
    assert cancelled.is_set()
    assert (await status(store, others)).state is State.IN_QUEUE
