"""The snapshot: polling from memory, logs, waiting for completion, and failures of the database."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from keyreel.fal.endpoints import MULTICONDITIONING
from keyreel.fal.outcomes import Success
from keyreel.server.snapshot import Snapshot
from keyreel.store import Store, open_store
from keyreel.store.database import Database
from keyreel.store.records import LogLine, NewRequest, State, Status
from keyreel.store.requests import Requests
from tests.store.template import put_database


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(put_database(tmp_path)) as store:
        yield store


def recorded_reads(store: Store) -> list[str]:
    """Returns a list that records the statements that read the database from now on."""
    statements: list[str] = []

    @event.listens_for(store.database._reader.sync_engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement != "BEGIN":
            statements.append(statement)

    return statements


async def submit(store: Store) -> str:
    new = NewRequest(endpoint=MULTICONDITIONING.id, key_id="a", input={"prompt": "a fox"}, seed=1)
    return (await store.queue.submit(new)).id


async def test_the_status_of_live_requests_needs_no_database(store: Store) -> None:
    snapshot, ids = Snapshot(store), [await submit(store) for _ in range(3)]
    await snapshot.refresh()
    statements = recorded_reads(store)
    found = [await snapshot.status(request_id) for request_id in ids * 100]
    assert [status.position for status in found[:3] if status] == [0, 1, 2]
    assert statements == []
    # A request that came after the refresh is found, too.
    new = await snapshot.status(await submit(store))
    assert new
    assert new.position == 3
    assert await snapshot.status("nobody") is None


async def test_the_row_of_a_waiting_request_is_read_once(store: Store) -> None:
    snapshot, ids = Snapshot(store), [await submit(store) for _ in range(4)]
    assert await store.queue.claim("w")
    statements = recorded_reads(store)
    await snapshot.refresh()
    assert len(statements) == 3
    found = [await snapshot.status(request_id) for request_id in ids]
    assert found == [await store.requests.status(request_id) for request_id in ids]
    await store.queue.cancel(ids[1])
    statements.clear()
    await snapshot.refresh()
    assert len(statements) == 2
    found = [await snapshot.status(request_id) for request_id in ids[2:]]
    assert [status.position for status in found if status] == [0, 1]
    assert len(statements) == 2


async def test_a_long_queue_is_read_a_part_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyreel.server.snapshot.NEW_ROWS", 2)
    snapshot, ids = Snapshot(store), [await submit(store) for _ in range(3)]
    for reads in (1, 0):
        await snapshot.refresh()
        statements = recorded_reads(store)
        found = [await snapshot.status(request_id) for request_id in ids]
        assert [status.position for status in found if status] == [0, 1, 2]
        assert len(statements) == reads


async def test_a_request_that_returned_to_the_queue_is_read_again(store: Store) -> None:
    snapshot, request_id = Snapshot(store), await submit(store)
    await snapshot.refresh()
    before = await snapshot.status(request_id)
    lease = await store.queue.claim("w")
    assert lease
    await store.queue.hand_back(lease)
    await snapshot.refresh()
    after = await snapshot.status(request_id)
    assert before
    assert after == await store.requests.status(request_id)
    assert (before.attempt, after and after.attempt) == (0, 1)


async def test_each_line_of_a_log_is_read_once(store: Store) -> None:
    snapshot, request_id = Snapshot(store), await submit(store)
    lease = await store.queue.claim("w")
    assert lease
    statements = recorded_reads(store)
    for number in range(1, 4):
        await store.queue.heartbeat(lease, None, [LogLine(f"line {number}")])
        await snapshot.refresh()
        statements.clear()
        status = await snapshot.status(request_id)
        assert status
        logs = await asyncio.gather(*(snapshot.log(status) for _ in range(5)))
        assert [line.message for line in logs[0]] == [f"line {n}" for n in range(1, number + 1)]
        assert len(statements) == 1
    await store.queue.finish(lease, Success({}))
    await snapshot.refresh()
    completed = await snapshot.status(request_id)
    assert completed
    assert completed.state is State.COMPLETED
    assert len(await snapshot.log(completed)) == 3


class GatedRequests(Requests):
    """Requests that are read at once and returned when the test opens the gate."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.read, self.gate = asyncio.Event(), asyncio.Event()

    async def running(self) -> list[Status]:
        found = await super().running()
        self.read.set()
        await self.gate.wait()
        return found


async def test_a_status_never_goes_backwards(store: Store) -> None:
    requests = GatedRequests(store.database)
    snapshot, request_id = Snapshot(replace(store, requests=requests)), await submit(store)
    refresh = asyncio.create_task(snapshot.refresh())
    await requests.read.wait()
    assert await store.queue.claim("w")
    first = asyncio.create_task(snapshot.status(request_id))
    await asyncio.wait([first], timeout=0.05)
    requests.gate.set()
    await refresh
    states = [status.state for status in (await first, await snapshot.status(request_id)) if status]
    assert states in ([State.IN_QUEUE] * 2, [State.IN_PROGRESS] * 2, [State.IN_QUEUE, State.IN_PROGRESS])


async def test_a_change_in_this_process_is_seen_before_the_next_refresh(store: Store) -> None:
    snapshot, request_id = Snapshot(store), await submit(store)
    await snapshot.refresh()
    lease = await store.queue.claim("w")
    assert lease
    assert await state(snapshot, request_id) is State.IN_PROGRESS
    await store.queue.finish(lease, Success({}))
    assert await state(snapshot, request_id) is State.COMPLETED


async def test_a_copy_that_is_too_old_gives_no_places(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot, ids = Snapshot(store), [await submit(store) for _ in range(2)]
    await snapshot.refresh()
    await store.queue.claim("w")
    before = await snapshot.status(ids[1])
    monkeypatch.setattr("keyreel.server.snapshot.STALE", -1.0)
    after = await snapshot.status(ids[1])
    assert before
    assert after
    assert (before.position, after.position) == (1, 0)


class FailingRequests(Requests):
    """Rows whose first reads fail."""

    failures = 0

    async def statuses(self, ids: Collection[str]) -> dict[str, Status]:
        if self.failures:
            self.failures -= 1
            raise OSError("the connection is broken")
        return await super().statuses(ids)


@pytest.mark.parametrize(("failures", "expected"), [(1, State.IN_PROGRESS), (2, State.IN_QUEUE)])
async def test_what_was_last_known_is_told_only_when_the_database_is_away(
    store: Store, failures: int, expected: State
) -> None:
    requests = FailingRequests(store.database)
    snapshot, request_id = Snapshot(replace(store, requests=requests)), await submit(store)
    await snapshot.refresh()
    assert await store.queue.claim("w")
    requests.failures = failures
    assert await state(snapshot, request_id) is expected
    requests.failures = 1
    with pytest.raises(OSError, match="broken"):
        await snapshot.status("nobody")


async def state(snapshot: Snapshot, request_id: str) -> State:
    status = await snapshot.status(request_id)
    assert status
    return status.state


@pytest.fixture
async def fleet(fleet_url: str) -> AsyncIterator[tuple[Store, Store]]:
    """The stores of two processes."""
    async with open_store(fleet_url) as first, open_store(fleet_url) as second:
        yield first, second


async def test_a_gateway_with_an_old_copy_tells_the_state_that_others_tell(fleet: tuple[Store, Store]) -> None:
    gateways, request_id = [Snapshot(store) for store in fleet], await submit(fleet[0])
    for gateway in gateways:
        await gateway.refresh()
    for finish in (False, True):
        lease = await fleet[0].queue.claim("w")
        assert lease
        await check_all_tell_the_same(request_id, *gateways)
        await (fleet[0].queue.finish(lease, Success({})) if finish else fleet[0].queue.hand_back(lease))
        await check_all_tell_the_same(request_id, *gateways)


async def check_all_tell_the_same(request_id: str, *gateways: Snapshot) -> None:
    told = [await gateway.status(request_id) for gateway in gateways]
    assert told[0]
    assert told == [await gateways[0]._store.requests.status(request_id)] * len(told)


async def test_a_request_never_goes_back_for_a_client_of_several_gateways(fleet: tuple[Store, Store]) -> None:
    first, second = Snapshot(fleet[0]), Snapshot(fleet[1])
    async with asyncio.timeout(60), first.running(), second.running(), asyncio.TaskGroup() as tasks:
        ids = [await submit(fleet[0]) for _ in range(20)]
        clients = [tasks.create_task(watch(request_id, itertools.cycle((first, second)))) for request_id in ids]
        tasks.create_task(work(fleet[1], len(ids)))
    for client in clients:
        assert client.result() == sorted(client.result())


async def watch(request_id: str, gateways: Iterator[Snapshot]) -> list[float]:
    """Asks one gateway after the other until the request is completed. Returns how far it was each time."""
    seen: list[float] = []
    while not seen or seen[-1] < COMPLETED:
        status = await next(gateways).status(request_id)
        assert status
        seen.append(COMPLETED if status.state is State.COMPLETED else 2 * status.attempt + turn[status.state])
        await asyncio.sleep(0)
    return seen


COMPLETED = 99.0
turn = {State.IN_PROGRESS: 0, State.IN_QUEUE: 1}
"""An attempt runs before its request goes back into the queue."""


async def work(store: Store, requests: int) -> None:
    """Hands back each request once, then completes it."""
    while requests:
        lease = await store.queue.claim("w")
        assert lease
        if lease.attempt == 1:
            await store.queue.hand_back(lease)
        else:
            await store.queue.finish(lease, Success({}))
            requests -= 1


async def test_clients_of_a_fleet_share_reads(fleet: tuple[Store, Store]) -> None:
    snapshot, ids = Snapshot(fleet[0]), [await submit(fleet[0]) for _ in range(3)]
    await snapshot.refresh()
    statements = recorded_reads(fleet[0])
    found = await asyncio.gather(*(snapshot.status(request_id) for request_id in ids * 100))
    assert [status.position for status in found[:3] if status] == [0, 1, 2]
    assert len(statements) == 1


async def test_waiting_for_completion_ends(store: Store) -> None:
    snapshot = Snapshot(store)
    async with snapshot.running(), asyncio.timeout(10):
        for _ in range(5):
            request_id = await submit(store)
            waiting = asyncio.create_task(snapshot.completed(request_id))
            # The request runs for too short a time for a refresh to see it.
            lease = await store.queue.claim("w")
            assert lease
            await store.queue.finish(lease, Success({}))
            assert (await waiting).outcome == Success({})
        with pytest.raises(LookupError):
            await snapshot.completed("nobody")


async def test_the_snapshot_recovers_from_database_errors(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyreel.server.snapshot.RECOVERY", 0.0)
    snapshot, queue, failures = Snapshot(store), store.requests.queue, 0

    async def unreliable() -> Any:
        nonlocal failures
        if failures == 3:
            return await queue()
        failures += 1
        raise OSError("unavailable")

    request_id = await submit(store)
    async with snapshot.running(), asyncio.timeout(10):
        monkeypatch.setattr(store.requests.__class__, "queue", lambda _self: unreliable())
        changed = snapshot.changed
        await store.queue.cancel(request_id)
        await changed.wait()
        assert failures == 3
        assert (await snapshot.completed(request_id)).state is State.COMPLETED
