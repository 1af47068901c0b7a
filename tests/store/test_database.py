import asyncio
import gc
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine.interfaces import CacheStats
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import Pool

from keyreel.fal.outcomes import Success
from keyreel.store import Store, open_store
from keyreel.store.records import Limits, LogLine, NewFile, StoreInUseError, StoreUnavailableError, Worker
from tests.store.steps import live_requests, new_request, recorded_events, submit


@pytest.fixture
def file_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'keyreel.db'}"


async def test_an_sqlite_file_can_be_opened_only_once(file_url: str) -> None:
    async with open_store(file_url):
        with pytest.raises(StoreInUseError, match=f"keyreel.db is in use by process {os.getpid()}. "):
            async with open_store(file_url):
                pass
    async with open_store(file_url) as store:
        assert await live_requests(store) == []


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
async def test_a_database_in_memory_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="needs a file"):
        async with open_store(url):
            pass


async def test_other_databases_are_refused() -> None:
    with pytest.raises(StoreUnavailableError, match="not with mysql://"):
        async with open_store("mysql://host/keyreel"):
            pass


@pytest.mark.parametrize(
    "url",
    ["keyreel", "postgresql://keyreel:SECRET@host:port/keyreel", "postgresql://keyreel:SECRET@host/keyreel?tls=yes"],
)
async def test_a_url_that_cannot_be_used_is_explained_without_its_password(url: str) -> None:
    with pytest.raises(StoreUnavailableError, match="KEYREEL_DATABASE_URL") as raised:
        async with open_store(url):
            pass
    assert "SECRET" not in str(raised.value)


async def test_the_url_may_say_sslmode_as_for_pg_dump() -> None:
    with pytest.raises(StoreUnavailableError, match=r"postgresql://127.0.0.1:1/x\?ssl=require: "):
        async with open_store("postgresql://127.0.0.1:1/x?sslmode=require"):
            pass


async def test_commits_are_durable(file_url: str) -> None:
    expected = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}
    async with open_store(file_url) as store, store.database.write() as connection:
        for pragma, value in expected.items():
            assert (await connection.execute(text(f"PRAGMA {pragma}"))).scalar_one() == value


async def test_a_reading_transaction_cannot_write(file_url: str) -> None:
    async with open_store(file_url) as store:
        with pytest.raises(OperationalError, match="readonly"):
            async with store.database.read() as connection:
                await connection.execute(text("DELETE FROM request"))


def compiled(executions: Iterable[tuple[Any, ...]]) -> set[str]:
    """Returns the statements that SQLAlchemy had to compile."""
    return {
        statement
        for _connection, _cursor, statement, _values, context, _many in executions
        if context.compiled and context.cache_hit is not CacheStats.CACHE_HIT
    }


async def test_statements_are_compiled_once(file_url: str) -> None:
    """Compiling takes longer than executing."""

    async def everything(store: Store) -> None:
        limits = Limits(
            max_requests=5, max_queued=5, max_running=5, max_per_minute=60, max_bytes=1000, max_upload_bytes=1000
        )
        key = await store.keys.create("somebody", limits=limits)
        await store.keys.get(key.key.id)
        await store.files.add(
            NewFile(key_id=key.key.id, object="a", name="a.png", content_type="image/png", size=10, lifetime=60),
            upload=True,
        )
        await store.files.expired()
        await store.workers.report(Worker(name="worker", pool="default", device="cpu", model="model", ready=True))
        await store.workers.alive()
        await submit(store, key_id=key.key.id, webhook_url="http://keyreel.example")
        await store.queue.has_work()
        lease = await store.queue.claim("worker")
        assert lease
        await store.queue.enter_device(lease)
        await store.queue.heartbeat(lease, {"step": 1}, [LogLine("a line")])
        await store.queue.leave_device(lease)
        await store.requests.running()
        await store.requests.queue()
        await store.queue.finish(lease, Success({}))
        await store.requests.status(lease.id)
        await store.deliveries.has_due()
        (delivery,) = await store.deliveries.claim()
        await store.deliveries.delivered(delivery)
        await store.queue.reap()

    async with open_store(file_url) as store:
        await everything(store)
        with recorded_events(Engine, "after_cursor_execute") as executions:
            await everything(store)
    assert compiled(executions) == set()


async def test_a_reader_does_not_wait_for_the_writer(file_url: str) -> None:
    async with open_store(file_url) as store:
        request_id = await submit(store)
        async with store.database.write() as connection:
            await connection.execute(text("DELETE FROM request"))
            assert await store.requests.status(request_id) is not None
        assert await store.requests.status(request_id) is None


async def test_a_full_disk_loses_no_request_that_was_accepted(file_url: str) -> None:
    async with open_store(file_url) as store:
        accepted = {await submit(store)}
        await _limit_pages(store, "(SELECT page_count FROM pragma_page_count)")
        with pytest.raises(OperationalError, match="full"):
            for _ in range(1000):
                accepted.add(await submit(store, input={"prompt": "x" * 1000}))
        assert {request.id for request in await live_requests(store)} == accepted
        await _limit_pages(store, "1000000")
        accepted.add(await submit(store))
        assert {request.id for request in await live_requests(store)} == accepted


async def _limit_pages(store: Store, pages: str) -> None:
    async with store.database.write() as connection:
        count = (await connection.execute(text(f"SELECT {pages}"))).scalar_one()
        await connection.execute(text(f"PRAGMA max_page_count = {count}"))


async def test_cancelled_calls_leave_the_store_usable(store: Store) -> None:
    for fraction in range(25):
        call = asyncio.create_task(store.queue.submit(new_request()))
        await asyncio.wait([call], timeout=fraction * 0.0004)
        call.cancel()
        await asyncio.wait([call])
    before = len(await live_requests(store))
    await submit(store)
    assert len(await live_requests(store)) == before + 1


async def test_a_client_that_goes_away_costs_no_connection(store: Store) -> None:
    """anyio, which ends the calls of such clients, cancels again and again."""
    faults = list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: faults.append(context))
    with recorded_events(Pool, "connect") as opened:
        for fraction in range(25):
            with anyio.move_on_after(fraction * 0.0002):
                await store.requests.queue()
                await store.queue.submit(new_request())
                await anyio.sleep_forever()
            await asyncio.gather(*(store.requests.queue() for _ in range(4)))
    # One for each of the readers, and the first writer.
    assert len(opened) <= 5
    gc.collect()
    assert faults == []
