from pathlib import Path

from sqlalchemy import Engine

from keyreel.fal.outcomes import Failure, Success
from keyreel.store import Store, open_store
from keyreel.store.browse import Call, Usage
from keyreel.store.records import NewFile, State
from tests.store.conftest import Clock
from tests.store.steps import WEBHOOK, claim, leased, recorded_events, submit
from tests.store.template import put_database


async def test_requests_are_listed_newest_first_a_page_at_a_time(store: Store) -> None:
    ids = [await submit(store, key_id=key) for key in ("one", "two", "one")]
    listed = await store.browse.requests(limit=10)
    assert [request.id for request in listed] == ids[::-1]
    first_page = await store.browse.requests(limit=2)
    assert first_page == listed[:2]
    assert await store.browse.requests(before=first_page[-1].seq, limit=2) == listed[2:]
    assert [request.id for request in await store.browse.requests(key_id="one", limit=10)] == [ids[2], ids[0]]


async def test_a_request_is_shown_with_its_input_times_and_outcome(store: Store, clock: Clock) -> None:
    request_id = await submit(store, input={"prompt": "a fox"}, seed=9)
    await clock.advance(1)
    lease = await claim(store, "worker-1")
    await store.queue.heartbeat(lease, {"step": 2})
    await clock.advance(1)
    running = await store.browse.request(request_id)
    assert running is not None
    assert (running.state, running.worker, running.progress) == (State.IN_PROGRESS, "worker-1", {"step": 2})
    await store.queue.finish(lease, Success({"seed": 9}))
    ended = await store.browse.request(request_id)
    assert ended is not None
    assert (ended.input, ended.seed) == ({"prompt": "a fox"}, 9)
    assert (ended.created, ended.started, ended.finished) == (Clock.start, Clock.start + 1, Clock.start + 2)
    assert (ended.state, ended.outcome) == (State.COMPLETED, Success({"seed": 9}))


async def test_expired_and_unknown_requests_are_not_shown(store: Store, clock: Clock) -> None:
    lease = await leased(store, retention=60)
    await store.queue.finish(lease, Failure("broken", "internal_error"))
    assert await store.browse.request("no such request") is None
    await clock.advance(59)
    assert await store.browse.request(lease.id) is not None
    await clock.advance(1)
    assert await store.browse.request(lease.id) is None
    assert await store.browse.requests(limit=10) == []


async def test_calls_are_listed_newest_first(store: Store) -> None:
    leases = [await leased(store, webhook_url=f"{WEBHOOK}/{index}") for index in range(3)]
    for lease in leases:
        await store.queue.finish(lease, Success({}))
    first, *_ = await store.deliveries.claim()
    await store.deliveries.failed(first, "503", permanent=True)
    calls = await store.browse.calls(limit=10)
    assert [call.request_id for call in calls] == [lease.id for lease in reversed(leases)]
    assert calls[-1] == Call(first.id, leases[0].id, f"{WEBHOOK}/0", "FAILED", 1, calls[-1].due, "503")
    assert (calls[0].state, calls[0].error) == ("PENDING", None)
    assert await store.browse.calls(limit=2) == calls[:2]


async def test_usage_sums_up_the_stored_files(store: Store) -> None:
    assert await store.browse.usage() == Usage(0, 0)
    for size in (3, None, 2**40):
        await store.files.add(NewFile(key_id="key", object="in/1", name="a.png", content_type="image/png", size=size))
    assert await store.browse.usage() == Usage(3, 2**40 + 3)


async def test_a_list_reads_no_more_rows_than_it_shows(tmp_path: Path) -> None:
    """It took two seconds for a key with 3,000 requests that waited, and meanwhile nobody else's status was read."""
    async with open_store(put_database(tmp_path)) as store:
        with recorded_events(Engine, "before_cursor_execute") as statements:
            await store.browse.requests(key_id="one", limit=10)
        listing = next(each for each in statements if "seq DESC" in each[2])
        async with store.database.read() as connection:
            plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {listing[2]}", listing[3])
            assert [row.detail for row in plan] == ["SEARCH request USING INDEX request_list (key_id=?)"]
