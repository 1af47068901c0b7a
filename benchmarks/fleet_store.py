"""The store's part of `benchmarks.fleet`: what its statements cost PostgreSQL, by rows, by workers and by listeners."""

import asyncio
import multiprocessing
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from multiprocessing.synchronize import Barrier
from typing import Any

import asyncpg
from tests.store.steps import new_request

from benchmarks.postgres import Monitor
from benchmarks.tables import print_table
from keyreel.fal.outcomes import Success
from keyreel.server.snapshot import Snapshot
from keyreel.store import Store, open_store
from keyreel.store.records import Lease, LogLine

SUCCESS = Success({"prompt": "a fox", "seed": 7, "video": {"url": "https://example.com/video.mp4"}})
PROGRESS = {"stage": "denoise", "step": 7, "steps": 30, "seconds_per_step": 0.9, "seconds_left": 20.7}
CHANNEL = "benchmark"

Call = Callable[[], Awaitable[object]]


async def fill(monitor: Monitor, store: Store, rows: int) -> list[str]:
    """Leaves `rows` waiting requests in the store and returns the ids of some."""
    await monitor.execute("DELETE FROM request")
    if not rows:
        return []
    first = (await store.queue.submit(new_request())).id
    names = await monitor.value(
        "SELECT string_agg(quote_ident(column_name), ', ') FROM information_schema.columns"
        " WHERE table_name = 'request' AND column_name NOT IN ('id', 'seq')"
    )
    await monitor.execute(
        f"INSERT INTO request (id, {names}) SELECT gen_random_uuid()::text, {names}"  # noqa: S608
        f" FROM request, generate_series(2, {rows}) WHERE id = '{first}'"
    )
    await monitor.execute("VACUUM ANALYZE request")
    return list(
        await monitor.value("SELECT array_agg(id) FROM (SELECT id FROM request ORDER BY id LIMIT 1000) AS found")
    )


async def measure_statements(url: str, monitor: Monitor, sizes: Sequence[int], calls: int) -> None:
    """Prints what the calls cost that a fleet makes all the time."""
    async with open_store(url) as store:
        for rows in sizes:
            ids = await fill(monitor, store, rows)
            head = ("call", "statements", "PostgreSQL, ms", "median, ms")
            lines = [await _measure(name, call, number, monitor) for name, call, number in _calls(store, ids, calls)]
            print_table(f"{rows:,} live requests", head, *lines)


def _calls(store: Store, ids: Sequence[str], calls: int) -> list[tuple[str, Call, int]]:
    snapshot, leases = Snapshot(store), list[Lease]()
    waiting, held = iter(ids), iter(leases)

    async def claim() -> None:
        lease = await store.queue.claim("worker")
        assert lease is not None  # noqa: S101
        leases.append(lease)

    return [
        ("submit", lambda: store.queue.submit(new_request()), calls),
        # Workers of older commits looked for work with `depths`.
        ("look for work", getattr(store.queue, "has_work", store.requests.depths), calls),
        ("claim", claim, calls),
        ("heartbeat with a line", lambda: store.queue.heartbeat(leases[0], PROGRESS, [LogLine("Denoising")]), calls),
        ("heartbeat", lambda: store.queue.heartbeat(leases[0], PROGRESS), calls),
        ("finish", lambda: store.queue.finish(next(held), SUCCESS), calls),
        ("status of one that waits", lambda: store.requests.status(next(waiting)), min(calls, len(ids))),
        ("snapshot", snapshot.refresh, max(3, calls // 40)),
    ]


async def _measure(name: str, call: Call, number: int, monitor: Monitor) -> tuple[str, ...]:
    """Returns a row: the call's name, its statements, the server's processor time and the caller's median time."""
    taken = []

    async def all_calls() -> None:
        for _ in range(number):
            start = time.perf_counter()
            await call()
            taken.append(time.perf_counter() - start)

    usage = await monitor.during(all_calls())
    milliseconds = 1000 * usage.seconds / number, 1000 * statistics.median(taken)
    return name, f"{usage.statements / number:.1f}", *(f"{value:.2f}" for value in milliseconds)


async def measure_rates(url: str, monitor: Monitor, numbers: Sequence[int], requests: int) -> None:
    """Prints how many requests a number of worker processes claim and finish, one after the other."""
    lines, first = [], 0.0
    async with open_store(url) as store:
        for number in numbers:
            await fill(monitor, store, requests)
            usage = await monitor.during(asyncio.to_thread(_drain_at_once, url, number))
            rate = requests / await monitor.value("SELECT max(finished) - min(started) FROM request")
            first = first or rate
            cost = 1000 * usage.seconds / requests
            lines.append((str(number), f"{rate:,.0f}", f"{rate / first:.2f}", f"{cost:.2f}"))
    print_table("Claim and finish", ("workers", "requests/s", "ratio", "PostgreSQL, ms each"), *lines)


def _drain_at_once(url: str, number: int) -> None:
    """Runs `number` processes that empty the queue."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(number)
    processes = [context.Process(target=_drain, args=(url, f"worker-{each}", barrier)) for each in range(number)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


def _drain(url: str, name: str, barrier: Barrier) -> None:
    asyncio.run(_empty(url, name, barrier))


async def _empty(url: str, name: str, barrier: Barrier) -> None:
    async with open_store(url) as store:
        await asyncio.to_thread(barrier.wait)
        while lease := await store.queue.claim(name):
            await store.queue.finish(lease, SUCCESS)


async def measure_fan_out(url: str, monitor: Monitor, listeners: int, number: int) -> None:
    """Prints what it costs to tell many processes of a change."""
    async with _listening(url, listeners, number) as heard:

        async def tell() -> None:
            for _ in range(number):
                await monitor.execute(f"NOTIFY {CHANNEL}, '0123456789abcdef queued'")
            await heard.wait()

        usage = await monitor.during(tell())
    cost = 1_000_000 * usage.seconds / (number * listeners)
    print(f"\nA notification costs PostgreSQL {cost:.0f} us for each of {listeners} connections that listen.")


@asynccontextmanager
async def _listening(url: str, listeners: int, number: int) -> AsyncIterator[asyncio.Event]:
    """Opens connections that listen. The event is set when each has heard `number` notifications."""
    left, done = listeners * number, asyncio.Event()

    def hear(*_: Any) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    async with AsyncExitStack() as stack:
        for _ in range(listeners):
            connection = await asyncpg.connect(url)
            stack.push_async_callback(connection.close)
            await connection.add_listener(CHANNEL, hear)
        yield done
