"""Kills the server many times while clients submit requests: `python -m tests.server.chaos --rounds 200`.

After a restart, each accepted request must exist and complete once. The same holds for a request that a client sent
again, under the same idempotency key, because the answer was lost. `--database postgresql` runs it on PostgreSQL.
"""

import argparse
import asyncio
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp

from keyreel.fal.outcomes import WORKER_LOST
from keyreel.store.submission import MAX_FAILURES
from tests.server.live import APP, ENDPOINT
from tests.server.requests_table import check_integrity, read_requests
from tests.server.whole import HEADERS, small, whole_server
from tests.store.postgres import DATABASES, database_of_kind

CLIENTS = 8
MAX_PAUSE = 1.0
"""Seconds that the worker has before the storm of submits, at most."""
MAX_STORM = 0.15
"""Seconds from the start of the storm to the kill, at most."""
TIMEOUT = 120.0
"""Seconds until the next waiting request has completed."""
WORK = small("pace=0.01", number_of_steps=5)


@dataclass
class Chaos:
    """What the clients and the database have shown so far."""

    folder: Path
    database_url: str
    rng: random.Random
    accepted: dict[str, str] = field(default_factory=dict)
    """Request ids by idempotency key."""
    unanswered: list[str] = field(default_factory=list)
    """Idempotency keys."""
    completed: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    """Outcomes by request id, as first seen."""
    counts: Counter[str] = field(default_factory=Counter)

    async def round(self) -> None:
        # The rounds alternate between a running worker and a server that has just started.
        worker = bool(self.counts["rounds"] % 2)
        async with (
            whole_server(self.folder, worker=worker, database=self.database_url) as server,
            aiohttp.ClientSession(server.url, headers=HEADERS) as http,
        ):
            await self._send_again(http)
            if worker:
                await ready(http)
                await asyncio.sleep(self.rng.uniform(0, MAX_PAUSE))
            storm = [asyncio.create_task(self._storm(http)) for _ in range(CLIENTS)]
            await asyncio.sleep(self.rng.uniform(0, MAX_STORM))
            server.process.kill()
            await server.process.wait()
            await asyncio.gather(*storm)
        self.counts["rounds"] += 1
        await self._check_database()

    async def drain(self) -> None:
        """Starts the server a last time and waits until all requests have completed."""
        async with (
            whole_server(self.folder, database=self.database_url) as server,
            aiohttp.ClientSession(server.url, headers=HEADERS) as http,
        ):
            await self._send_again(http)
            for request_id in self.accepted.values():
                async with asyncio.timeout(TIMEOUT):
                    await ended(http, request_id)
            for request_id in self.accepted.values():
                if not await check_video(http, request_id, WORKER_LOST.type):
                    self.counts[f"ended after {MAX_FAILURES} kills"] += 1
            await server.end()
        await self._check_database()
        assert self.completed.keys() == set(self.accepted.values())
        self.counts["accepted"] = len(self.accepted)

    async def _storm(self, http: aiohttp.ClientSession) -> None:
        while await self._submit(http, str(uuid4())):
            pass

    async def _send_again(self, http: aiohttp.ClientSession) -> None:
        again, self.unanswered = self.unanswered, []
        for key in again:
            assert await self._submit(http, key)
            self.counts["sent again"] += 1

    async def _submit(self, http: aiohttp.ClientSession, key: str) -> bool:
        """Submits a request. Tells whether it was answered."""
        try:
            async with http.post(f"/queue/{ENDPOINT}", json=WORK, headers={"Idempotency-Key": key}) as answer:
                assert answer.status == 200, await answer.text()
                self.accepted[key] = (await answer.json())["request_id"]
        except aiohttp.ClientError:
            self.unanswered.append(key)
            return False
        return True

    async def _check_database(self) -> None:
        """Checks the database while no server uses it."""
        check_integrity(self.database_url)
        columns = "id", "idempotency_key", "state", "attempt", "result", "error_type"
        rows = {row[0]: row[1:] for row in await read_requests(self.database_url, *columns)}
        missing = set(self.accepted.values()) - rows.keys()
        assert not missing, missing
        unknown = {row[0] for row in rows.values()} - self.accepted.keys() - set(self.unanswered)
        assert not unknown, unknown
        for request_id, (_, state, *outcome) in rows.items():
            if state == "COMPLETED":
                assert self.completed.setdefault(request_id, tuple(outcome)) == tuple(outcome)


async def chaos(folder: Path, database_url: str, rounds: int, seed: int = 0) -> Counter[str]:
    """Runs the rounds and checks the results. Returns counts to print."""
    run = Chaos(folder, database_url, random.Random(seed))  # noqa: S311
    for number in range(rounds):
        await run.round()
        if not (number + 1) % 20:
            print(f"{number + 1} rounds, {len(run.accepted)} accepted, {len(run.completed)} completed", flush=True)
    await run.drain()
    run.counts["took more than one attempt"] = sum(attempt > 1 for attempt, *_ in run.completed.values())
    return run.counts


async def ready(http: aiohttp.ClientSession) -> None:
    while True:
        async with http.get("/health/ready") as answer:
            if answer.status == 200:
                return
        await asyncio.sleep(0.05)


async def ended(http: aiohttp.ClientSession, request_id: str) -> None:
    while True:
        async with http.get(f"/queue/{APP}/requests/{request_id}/status") as answer:
            if answer.status == 200:
                return
            assert answer.status == 202
        await asyncio.sleep(0.1)


async def check_video(http: aiohttp.ClientSession, request_id: str, *expected_errors: str) -> bool:
    """Tells whether the request has a complete video. If it failed, its error must be one of `expected_errors`."""
    async with http.get(f"/queue/{APP}/requests/{request_id}") as answer:
        body = await answer.json()
    if answer.status != 200:
        assert body["error_type"] in expected_errors, body
        return False
    # Only the path: an earlier server, on another port, made the URL.
    async with http.get(urlsplit(body["video"]["url"]).path) as video:
        assert len(await video.read()) == body["video"]["file_size"]
    return True


def _main(rounds: int, seed: int, database: str) -> None:
    with tempfile.TemporaryDirectory() as name, database_of_kind(database, Path(name)) as url:
        started = time.monotonic()
        counts = asyncio.run(chaos(Path(name), url, rounds, seed))
    print(f"{database}:", ", ".join(f"{number} {name}" for name, number in counts.items()), end=": ")
    print(f"nothing lost, each completed once, integrity ok, in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--database", choices=DATABASES, default=DATABASES[0])
    arguments = parser.parse_args()
    _main(arguments.rounds, arguments.seed, arguments.database)
