"""The audit log: what is recorded, by whom, and for how long."""

from itertools import chain
from typing import Any

import pytest

from keyreel.fal.outcomes import CANCELLED, Success
from keyreel.store import Store
from keyreel.store.audit import SERVER, Action, Actor, Entry
from keyreel.store.records import Limits
from tests.store.conftest import Clock
from tests.store.steps import WEBHOOK, leased, submit

BOSS = Actor("boss", "203.0.113.7")


async def log(store: Store, **options: Any) -> list[Entry]:
    return await store.audit.entries(limit=100, **options)


async def test_what_is_done_to_a_key_is_recorded_without_its_secret(store: Store, clock: Clock) -> None:
    new = await store.keys.create("studio", admin=True, limits=Limits(max_queued=2), by=BOSS)
    await clock.advance(1)
    await store.keys.set_limits(new.key.id, Limits(max_running=3), BOSS)
    await store.keys.revoke(new.key.id, BOSS)
    revoked, limited, created = await log(store)
    assert {(each.key_id, each.address, each.target) for each in (revoked, limited, created)} == {
        ("boss", "203.0.113.7", new.key.id)
    }
    assert [each.action for each in (created, limited, revoked)] == ["key_created", "limits_replaced", "key_revoked"]
    assert created.detail == {"name": "studio", "admin": True, "max_queued": 2}
    assert (limited.detail, revoked.detail) == ({"max_running": 3}, None)
    assert (created.time, limited.time) == (Clock.start, Clock.start + 1)
    assert new.secret not in str(await log(store))


async def test_what_changes_nothing_is_not_recorded(store: Store) -> None:
    lease = await leased(store)
    await store.queue.finish(lease, CANCELLED)
    await store.queue.cancel(lease.id)
    await store.queue.cancel("nobody")
    await store.queue.forget("nobody")
    await store.keys.revoke("nobody")
    await store.keys.set_limits("nobody", Limits())
    await store.deliveries.call_again(1)
    assert await log(store) == []


async def test_requests_webhooks_and_sessions_are_recorded(store: Store) -> None:
    lease, waiting = await leased(store, webhook_url=WEBHOOK), await submit(store)
    await store.queue.cancel(waiting, BOSS)
    await store.queue.cancel(lease.id, BOSS)
    await store.queue.finish(lease, Success({}))
    await store.queue.forget(lease.id, BOSS)
    (delivery,) = await store.deliveries.claim()
    await store.deliveries.call_again(delivery.id, BOSS)
    await store.audit.record(BOSS, Action.SIGNED_IN)
    await store.sessions.end("a", 60, BOSS)
    assert [(each.action, each.target) for each in reversed(await log(store))] == [
        ("request_cancelled", waiting),
        ("request_cancelled", lease.id),
        ("request_deleted", lease.id),
        ("webhook_retried", str(delivery.id)),
        ("signed_in", None),
        ("signed_out", None),
    ]
    assert {each.key_id for each in await log(store)} == {"boss"}


async def test_a_change_that_fails_leaves_no_entry(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError

    waiting = await submit(store)
    monkeypatch.setattr(store.queue, "_cancel", fail)
    with pytest.raises(RuntimeError):
        await store.queue.cancel(waiting, BOSS)
    assert await log(store) == []


async def test_a_key_is_named_and_the_operators_key_is_recorded_once(store: Store) -> None:
    for secret in ("first", "first", "second"):
        await store.keys.put("boss", f"{secret} secret", "KEYREEL_ADMIN_KEY", admin=True)
    await store.keys.create("studio", by=BOSS)
    created, again, first = await log(store)
    assert (created.name, first.name) == ("KEYREEL_ADMIN_KEY", None)
    assert {(each.key_id, each.target) for each in (again, first)} == {(SERVER.key_id, "boss")}


async def test_entries_come_in_pages_and_by_time(store: Store, clock: Clock) -> None:
    for _ in range(5):
        await store.audit.record(BOSS, Action.SIGNED_IN)
        await clock.advance(10)
    newest = await store.audit.entries(limit=2)
    older = await store.audit.entries(limit=2, before=newest[-1].seq)
    assert [each.time - Clock.start for each in (*newest, *older)] == [40, 30, 20, 10]
    period = {"since": Clock.start + 10, "until": Clock.start + 30}
    assert [each.time - Clock.start for each in await log(store, **period)] == [20, 10]
    assert [[each.time for each in page] async for page in store.audit.pages(**period)] == [
        [Clock.start + 20, Clock.start + 10]
    ]


async def test_the_entries_of_a_period_are_more_than_a_page(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyreel.store.audit.PAGE", 2)
    for _ in range(5):
        await store.audit.record(BOSS, Action.SIGNED_IN)
    pages = [[each.seq for each in page] async for page in store.audit.pages(0, Clock.start + 1)]
    assert [*chain(*pages)] == [each.seq for each in await log(store)]
    assert [len(page) for page in pages] == [2, 2, 1]


async def test_old_entries_are_deleted(store: Store, clock: Clock) -> None:
    await store.audit.record(BOSS, Action.SIGNED_IN)
    await clock.advance(60)
    assert await store.audit.forget(60) == 0
    await store.audit.record(BOSS, Action.SIGNED_OUT)
    await clock.advance(1)
    assert await store.audit.forget(60) == 1
    assert [each.action for each in await log(store)] == ["signed_out"]
