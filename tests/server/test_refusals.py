from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keyreel.server.refusals import Refusals
from keyreel.store import Store
from tests.store.conftest import empty_store
from tests.store.template import put_database


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with empty_store(put_database(tmp_path)) as store:
        yield store


async def entries(store: Store) -> list[tuple[str | None, str | None, object]]:
    return [(each.address, each.target, each.detail) for each in reversed(await store.audit.entries(limit=1000))]


async def test_guesses_from_one_address_are_counted_together(store: Store) -> None:
    refusals = Refusals(store.audit)
    for number in range(100):
        await refusals.add(f"key-{number}", "203.0.113.7")
    await refusals.add("x" * 10_000, "203.0.113.8")
    await refusals.flush()
    expected = [
        ("203.0.113.7", "key-0", None),
        ("203.0.113.8", "x" * 100, None),
        ("203.0.113.7", None, {"times": 99}),
    ]
    assert await entries(store) == expected
    await refusals.flush()
    await refusals.add("key-100", "203.0.113.7")
    assert await entries(store) == [*expected, ("203.0.113.7", "key-100", None)]


async def test_guesses_from_very_many_addresses_are_counted_together(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keyreel.server.refusals._MAX_ADDRESSES", 3)
    refusals = Refusals(store.audit)
    for number in range(100):
        await refusals.add("key", f"2001:db8::{number}")
    await refusals.flush()
    assert len(await entries(store)) == 4
    assert (await entries(store))[-1] == (None, None, {"times": 97})
