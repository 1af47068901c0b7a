"""The register of files."""

from keyreel.store import Store
from keyreel.store.records import File, NewFile
from tests.store.conftest import Clock


async def add(store: Store, lifetime: float | None = None) -> File:
    acl = {"default": "allow", "rules": []}
    new = NewFile(key_id="key", object="in/1", name="a.png", content_type="image/png", acl=acl, lifetime=lifetime)
    return await store.files.add(new)


async def test_a_file_is_found_again(store: Store) -> None:
    added = await add(store)
    assert (added.object, added.created, added.expires_at, added.size) == ("in/1", Clock.start, None, None)
    assert added.acl == {"default": "allow", "rules": []}
    await store.files.uploaded(added.id, 2**40)
    found = await store.files.get(added.id)
    assert found is not None
    assert found.size == 2**40
    assert await store.files.get("no such file") is None


async def test_an_expired_file_is_hidden_and_then_swept(store: Store, clock: Clock) -> None:
    later, sooner, _ = await add(store, lifetime=20), await add(store, lifetime=10), await add(store)
    assert await store.files.expired() == []
    await clock.advance(10)
    assert await store.files.get(sooner.id) is None
    assert await store.files.get(later.id) == later
    await clock.advance(10)
    assert await store.files.expired() == [sooner, later]
    assert await store.files.expired(limit=1) == [sooner]
    await store.files.remove(sooner.id)
    assert await store.files.expired() == [later]
