"""Measures the server: `python -m benchmarks.server` prints the figures of docs/performance.md.

The device is a fake whose steps take a known time, so that only the server is measured. The growth of memory is
measured with a real model, the demo model.
"""

import argparse
import asyncio
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiohttp
from tests.server.live import APP, ENDPOINT
from tests.server.whole import HEADERS, KEY, small, whole_server
from tests.worker.processes import memory, server_processes

CONNECTIONS = 8
STEP = 0.05
"""Seconds that one step takes on the fake device."""
LONG_STEP = 0.5
"""Seconds that one step of a real model takes on a large GPU."""
MIB = 1024 * 1024

Call = Callable[[], Awaitable[object]]


def percentiles(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    return f"p50 {1000 * ordered[len(ordered) // 2]:.1f} ms, p99 {1000 * ordered[int(0.99 * len(ordered))]:.1f} ms"


def rate(seconds: Sequence[float], wall: float) -> str:
    return f"{len(seconds) / wall:,.0f}/s, {percentiles(seconds)}"


async def hammer(call: Call, number: int, connections: int = CONNECTIONS) -> tuple[list[float], float]:
    """Makes `number` calls, `connections` at a time. Returns the seconds of each call and the total time."""
    left, taken = iter(range(number)), []

    async def client() -> None:
        for _ in left:
            start = time.perf_counter()
            await call()
            taken.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(connections)))
    return taken, time.perf_counter() - start


class Client:
    """A client of the server."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    async def get(self, path: str) -> Any:
        async with self._http.get(path) as response:
            return await response.json()

    async def submit(self, **changes: Any) -> str:
        async with self._http.post(f"/queue/{ENDPOINT}", json=small(**changes)) as response:
            response.raise_for_status()
            return str((await response.json())["request_id"])

    async def status(self, request_id: str) -> Any:
        return await self.get(f"/queue/{APP}/requests/{request_id}/status")

    async def cancel(self, request_id: str) -> None:
        async with self._http.put(f"/queue/{APP}/requests/{request_id}/cancel"):
            return

    async def until(self, request_id: str, condition: Callable[[Any], object]) -> Any:
        while not condition(status := await self.status(request_id)):
            await asyncio.sleep(0.005)
        return status

    async def end(self, request_id: str) -> Any:
        """Waits until the request is completed."""
        return await self.until(request_id, _is_over)

    async def begun(self, request_id: str) -> Any:
        """Waits until the request's first step is over. Raises RuntimeError if the request ends before that is seen."""
        status = await self.until(
            request_id, lambda status: _is_over(status) or (status.get("progress") or {}).get("step")
        )
        if _is_over(status):
            raise RuntimeError(f"The request ended before its first step was seen: {status.get('error')}")
        return status


def _is_over(status: Any) -> bool:
    return bool(status["status"] == "COMPLETED")


@asynccontextmanager
async def served(folder: Path, *, worker: bool) -> AsyncIterator[Client]:
    async with whole_server(folder, worker=worker) as server:
        connector = aiohttp.TCPConnector(limit=CONNECTIONS)
        async with aiohttp.ClientSession(server.url, headers=HEADERS, connector=connector) as http:
            yield Client(http)
        await server.end()


async def submits_and_polls(folder: Path, rounds: int) -> None:
    """Measures the routes in turns, so that a short load of the machine affects all of them."""
    async with served(folder, worker=False) as client:
        live = await client.submit()
        for _ in range(100):
            await client.submit()
        routes: dict[str, tuple[Call, int]] = {
            "empty route": (lambda: client.get("/health/live"), 1000),
            "status poll": (lambda: client.status(live), 1000),
            "submit": (client.submit, 200),
        }
        taken: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in routes}
        for _ in range(rounds):
            for name, (call, number) in routes.items():
                seconds, wall = await hammer(call, number)
                taken[name][0].extend(seconds)
                taken[name][1].append(number / wall)
    best = {name: max(rates) for name, (_, rates) in taken.items()}
    for name, (seconds, rates) in taken.items():
        print(f"{name}: best {max(rates):,.0f}/s, median {statistics.median(rates):,.0f}/s, {percentiles(seconds)}")
    print(f"status poll : empty route = {best['status poll'] / best['empty route']:.2f}")
    bare = bare_commits(folder / "bare.db", 500)
    print(f"bare SQLite inserts, each committed: {bare:,.0f}/s; submit : bare insert = {best['submit'] / bare:.2f}")


def bare_commits(path: Path, number: int) -> float:
    """Returns the rate of bare inserts, each committed, with the server's journal mode and durability."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "CREATE TABLE t (input TEXT)"):
            database.execute(statement)
        start = time.perf_counter()
        for _ in range(number):
            database.execute("INSERT INTO t VALUES (?)", ("x" * 1000,))
        return number / (time.perf_counter() - start)


async def pick_up_cancel_and_busy(folder: Path, rounds: int) -> None:
    async with served(folder, worker=True) as client:
        for _ in range(3):  # warm up
            await client.end(await client.submit())
        measured = []
        for _ in range(rounds):
            request = await client.submit()
            await client.end(request)
            measured.append(request)
        latencies = {
            pace: [
                await cancel_latency(client, pace, pace * number / rounds, folder / f"tally-{pace}-{number}")
                for number in range(rounds)
            ]
            for pace in (STEP, LONG_STEP)
        }
        await busy(client, requests=20, steps=20)
    print(f"pick-up, from the submit's commit to the claim's: {percentiles(pick_ups(folder, measured))}")
    for pace, seen in latencies.items():
        steps, seconds = zip(*seen, strict=True)
        print(
            f"cancel of a running request, steps of {1000 * pace:.0f} ms: steps that the device still ends: "
            f"median {statistics.median(steps):.0f}, worst {max(steps)}; until it is completed: {percentiles(seconds)}"
        )


def pick_ups(folder: Path, requests: Sequence[str]) -> list[float]:
    """Returns the seconds from each request's submit to its claim."""
    with closing(sqlite3.connect(folder / "keyreel.db")) as database:
        rows: list[tuple[str, float]] = database.execute("SELECT id, started - created FROM request").fetchall()
    return [seconds for request, seconds in rows if request in requests]


async def cancel_latency(client: Client, pace: float, moment: float, tally: Path) -> tuple[int, float]:
    """Cancels a request `moment` seconds after a step of `pace` seconds was seen.

    Returns the number of steps that the device ends after the cancel was answered, the running one included, and the
    seconds until the request is seen to be completed. tally: file to which the fake engine adds a byte after each step.
    """
    request = await client.submit(prompt=f"pace={pace} tally={tally}", number_of_steps=50)
    await client.begun(request)
    await asyncio.sleep(moment)
    await client.cancel(request)
    start, before = time.perf_counter(), tally.stat().st_size
    await client.end(request)
    return tally.stat().st_size - before, time.perf_counter() - start


async def busy(client: Client, requests: int, steps: int) -> None:
    """Prints the share of time that the device works while requests are queued. Only its steps count as work."""
    queued = [await client.submit(prompt=f"pace={STEP}", number_of_steps=steps) for _ in range(requests)]
    over = (await client.begun(queued[0]))["progress"]["step"]
    start = time.perf_counter()
    await client.end(queued[-1])
    worked = STEP * (requests * steps - over)
    share = worked / (time.perf_counter() - start)
    print(f"device busy over {requests} queued requests of {STEP * steps:g} s: {share:.0%}")


async def memory_growth(folder: Path, requests: int, model: str) -> None:
    """Prints the memory of the server and its children after some requests, and its growth over `requests` more."""
    command = (sys.executable, "-m", "keyreel", "serve", "--port", "0", "--model", model, "--data-dir", str(folder))
    environment = os.environ | {"KEYREEL_ADMIN_KEY": KEY, "KEYREEL_CACHE_DIR": str(folder / "cache")}
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdout  # noqa: S101
    try:
        url = await _printed_url(process.stdout)
        async with aiohttp.ClientSession(url, headers=HEADERS) as http:
            client = Client(http)
            for _ in range(10):
                await client.end(await client.submit())
            before = resident(process.pid)
            for _ in range(requests):
                await client.end(await client.submit())
            after = resident(process.pid)
    finally:
        process.terminate()
        await process.wait()
    for name, size in after.items():
        grown = size - before.get(name, 0)
        print(f"memory of {name} after 10 requests and {requests} more: {size / MIB:.0f} MiB, {grown / MIB:+.1f} MiB")


async def _printed_url(lines: asyncio.StreamReader) -> str:
    async for line in lines:
        if b" is at " in line:
            return line.decode().split(" is at ")[1].strip()
    raise RuntimeError("keyreel serve did not start")


def resident(pid: int) -> dict[str, int]:
    """Returns the bytes of the server, and of each child process by the module that it runs."""
    return {name: memory(each) for name, each in server_processes(pid, "keyreel.worker.")}


async def main(rounds: int, requests: int, model: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        await submits_and_polls(folder / "polls", rounds)
        await pick_up_cancel_and_busy(folder / "device", 5 * rounds)
        await memory_growth(folder / "memory", requests, model)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=50, help="number of requests over which memory is measured")
    parser.add_argument("--model", default="demo")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.rounds, arguments.requests, arguments.model))
