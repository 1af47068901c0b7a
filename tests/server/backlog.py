"""Restarts a server with a long queue: `python -m tests.server.backlog --requests 10000`.

Prints how soon the server answers and goes on, and how fast it answers polls and submits meanwhile. The requests are
taken in their order. `--database postgresql` runs it on PostgreSQL.
"""

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from keyreel.store import open_store
from keyreel.store.submission import first_row, insert_request
from tests.server.chaos import TIMEOUT, ended
from tests.server.live import APP, ENDPOINT
from tests.server.requests_table import read_requests
from tests.server.whole import HEADERS, small, whole_server
from tests.store.postgres import DATABASES, database_of_kind
from tests.store.steps import new_request
from tests.worker.processes import processor_seconds

POLLS = 200
SUBMITS = 10
DONE = 8
"""Requests whose videos are waited for."""


async def queue_up(database_url: str, number: int) -> list[str]:
    """Fills the queue as submits would, in one transaction. Returns the ids."""
    ids = [f"{index:08}-0000-0000-0000-000000000000" for index in range(number)]
    async with open_store(database_url) as store, store.database.write() as connection:
        new = new_request(endpoint=ENDPOINT, input=small(number_of_steps=1))
        await connection.execute(insert_request(store.database.now), [first_row(new, each) for each in ids])
    return ids


async def restart(folder: Path, database_url: str, number: int) -> dict[str, float]:
    """Returns figures in milliseconds by name."""
    ids = await queue_up(database_url, number)
    started, taken = time.monotonic(), {}
    async with whole_server(folder, database=database_url) as server:
        async with aiohttp.ClientSession(server.url, headers=HEADERS) as http:
            await _status(http, ids[-1])
            taken["until the first answer"] = time.monotonic() - started
            taken["processor time of the server until then"] = processor_seconds(server.process.pid)
            async with asyncio.timeout(TIMEOUT):
                await ended(http, ids[0])
            taken["until the first video"] = time.monotonic() - started
            async with asyncio.timeout(TIMEOUT):
                polls = random.sample(ids, min(POLLS, number))
                taken |= await _measure("status", [partial(_status, http, each) for each in polls])
                taken |= await _measure("submit", [partial(_submit, http)] * SUBMITS)
            async with asyncio.timeout(TIMEOUT):
                await ended(http, ids[DONE - 1])
        await server.end()
    rows = await read_requests(database_url, "id", "started")
    known = set(ids)
    # Those of the new submits have another key, which has turns of its own.
    begun = [row.id for row in sorted(rows, key=lambda row: row.started or 0) if row.started and row.id in known]
    assert begun == ids[: len(begun)], "they were not taken in their order"
    assert len(rows) == number + SUBMITS
    return {name: 1000 * seconds for name, seconds in taken.items()}


async def _measure(name: str, calls: list[Callable[[], Awaitable[Any]]]) -> dict[str, float]:
    taken = []
    for call in calls:
        started = time.monotonic()
        await call()
        taken.append(time.monotonic() - started)
    taken.sort()
    return {f"{name}, median": taken[len(taken) // 2], f"{name}, worst": taken[-1]}


async def _status(http: aiohttp.ClientSession, request_id: str) -> None:
    async with http.get(f"/queue/{APP}/requests/{request_id}/status") as answer:
        assert answer.status in (200, 202), await answer.text()


async def _submit(http: aiohttp.ClientSession) -> None:
    async with http.post(f"/queue/{ENDPOINT}", json=small()) as answer:
        assert answer.status == 200, await answer.text()


def _main(number: int, database: str) -> None:
    with tempfile.TemporaryDirectory() as name, database_of_kind(database, Path(name)) as url:
        figures = asyncio.run(restart(Path(name), url, number))
    print(f"{database}, {number} requests in the queue at the start, milliseconds:")
    print(json.dumps({name: round(value) for name, value in figures.items()}, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--database", choices=DATABASES, default=DATABASES[0])
    given = parser.parse_args()
    _main(given.requests, given.database)
