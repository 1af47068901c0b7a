import pytest
from sqlalchemy import select, update

from keyreel.fal.outcomes import CANCELLED
from keyreel.store import Store
from keyreel.store.limits import KeyRevokedError
from keyreel.store.records import LeaseStatus, State
from keyreel.store.scopes import ALL_SCOPES, USER_SCOPES, Scope
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
    with pytest.raises(KeyRevokedError):
        await submit(store, key_id=new.key.id)
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


async def test_a_key_ends_when_it_expires(store: Store, clock: Clock) -> None:
    new = await store.keys.create("guest", expires_at=Clock.start + 60)
    await clock.advance(59)
    assert await store.keys.verify(new.key.id, new.secret) == await store.keys.get(new.key.id) == new.key
    await clock.advance(1)
    assert await store.keys.verify(new.key.id, new.secret) is None
    assert await store.keys.get(new.key.id) is None
    assert [key.expires_at for key in await store.keys.list()] == [Clock.start + 60]


async def test_keys_have_the_scopes_that_they_are_given(store: Store) -> None:
    created = [
        await store.keys.create("user"),
        await store.keys.create("admin", admin=True),
        await store.keys.create("reader", scopes=[Scope.READ]),
        await store.keys.create("watcher", scopes=[Scope.READ, Scope.OPERATE]),
    ]
    assert [new.key.scopes for new in created] == [USER_SCOPES, ALL_SCOPES, {Scope.READ}, {Scope.READ, Scope.OPERATE}]
    assert [await store.keys.get(new.key.id) for new in created] == [new.key for new in created]
    async with store.database.read() as connection:
        admins = set((await connection.execute(select(api_key.c.name).where(api_key.c.admin))).scalars())
    assert admins == {"admin", "watcher"}, "an older release knows them as administrators"


async def test_a_scope_of_a_newer_release_gives_no_other(store: Store) -> None:
    new = await store.keys.create("reader", scopes=[Scope.READ])
    async with store.database.write() as connection:
        await connection.execute(update(api_key).values(scopes=["read", "fly"]))
    key = await store.keys.get(new.key.id)
    assert key is not None
    assert key.scopes == {Scope.READ}
