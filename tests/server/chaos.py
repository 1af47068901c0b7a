"""Kills the server again and again in the middle of a storm of submits: `python -m tests.server.chaos --rounds 200`.

Whatever was answered must be there after the restart and complete, once; so must what was sent again under its
idempotency key because the answer was lost.
"""

import argparse
import asyncio
import random
import sqlite3
import tempfile
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp

from keyreel.store.queue import MAX_FAILURES
from keyreel.store.records import WORKER_LOST
from tests.server.live import APP, ENDPOINT
from tests.server.whole import HEADERS, small, whole_server

CLIENTS = 8
CALM = 1.0
"""Seconds that a worker has before a storm, at most."""
STORM = 0.15
"""Seconds from a storm's beginning to the kill, at most."""
PATIENCE = 120.0
"""Seconds until the next of those that wait has completed."""
WORK = small("pace=0.01", number_of_steps=5)


@dataclass
class Chaos:
    """What the clients and the database have said so far."""

    folder: Path
    moments: random.Random
    accepted: dict[str, str] = field(default_factory=dict)
    """Request ids by idempotency key."""
    unanswered: list[str] = field(default_factory=list)
    """Idempotency keys."""
    completed: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    """Outcomes by request id, as they were first seen."""
    counts: Counter[str] = field(default_factory=Counter)

    async def round(self) -> None:
        works = bool(self.counts["rounds"] % 2)  # every other storm meets a worker at work, every other one a start
        async with (
            whole_server(self.folder, worker=works) as server,
            aiohttp.ClientSession(server.url, headers=HEADERS) as http,
        ):
            await self._send_again(http)
            if works:
                await ready(http)
                await asyncio.sleep(self.moments.uniform(0, CALM))
            storm = [asyncio.create_task(self._storm(http)) for _ in range(CLIENTS)]
            await asyncio.sleep(self.moments.uniform(0, STORM))
            server.process.kill()
            await server.process.wait()
            await asyncio.gather(*storm)
        self.counts["rounds"] += 1
        self._look()

    async def calm(self) -> None:
        """The last start: everything is brought to its end."""
        async with whole_server(self.folder) as server, aiohttp.ClientSession(server.url, headers=HEADERS) as http:
            await self._send_again(http)
            for request_id in self.accepted.values():
                async with asyncio.timeout(PATIENCE):
                    await ended(http, request_id)
            for request_id in self.accepted.values():
                if not await check_video(http, request_id, WORKER_LOST.type):
                    self.counts[f"ended after {MAX_FAILURES} kills"] += 1
            await server.end()
        self._look()
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
        try:
            async with http.post(f"/queue/{ENDPOINT}", json=WORK, headers={"Idempotency-Key": key}) as answer:
                assert answer.status == 200, await answer.text()
                self.accepted[key] = (await answer.json())["request_id"]
        except aiohttp.ClientError:
            self.unanswered.append(key)
            return False
        return True

    def _look(self) -> None:
        """Into the database, while no server has it."""
        columns = "id, idempotency_key, state, attempt, result, error_type"
        with closing(sqlite3.connect(self.folder / "keyreel.db")) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            rows = {row[0]: row[1:] for row in database.execute(f"SELECT {columns} FROM request")}  # noqa: S608
        missing = set(self.accepted.values()) - rows.keys()
        assert not missing, missing
        unknown = {row[0] for row in rows.values()} - self.accepted.keys() - set(self.unanswered)
        assert not unknown, unknown
        for request_id, (_, state, *outcome) in rows.items():
            if state == "COMPLETED":
                assert self.completed.setdefault(request_id, tuple(outcome)) == tuple(outcome)


async def chaos(folder: Path, rounds: int, seed: int = 0) -> Counter[str]:
    run = Chaos(folder, random.Random(seed))  # noqa: S311
    for number in range(rounds):
        await run.round()
        if not (number + 1) % 20:
            print(f"{number + 1} rounds, {len(run.accepted)} accepted, {len(run.completed)} completed", flush=True)
    await run.calm()
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


async def check_video(http: aiohttp.ClientSession, request_id: str, *excuses: str) -> bool:
    """Whether there is a video, and all of it; if not, the request has failed three times with such an error."""
    async with http.get(f"/queue/{APP}/requests/{request_id}") as answer:
        body = await answer.json()
    if answer.status != 200:
        assert body["error_type"] in excuses, body
        return False
    # By the path alone: the address is of the server that made it, which had another port.
    async with http.get(urlsplit(body["video"]["url"]).path) as video:
        assert len(await video.read()) == body["video"]["file_size"]
    return True


def _main(rounds: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        counts = asyncio.run(chaos(Path(folder), rounds, seed))
    print(", ".join(f"{number} {what}" for what, number in counts.items()), end=": ")
    print(f"nothing lost, each completed once, integrity ok, in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    _main(arguments.rounds, arguments.seed)
