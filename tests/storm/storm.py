"""A storm over a fleet: `python -m tests.storm.storm --requests 300`.

Clients submit requests and follow them while gateways and workers are killed, paused, cut off and drained, while
PostgreSQL and S3 crash, and while PostgreSQL hangs. Afterwards each accepted request must be completed once, with one
result and one delivery.
"""

import argparse
import asyncio
import itertools
import json
import random
import shutil
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
from sqlalchemy import func, select, update

from keyreel.fal.outcomes import WORKER_LOST
from keyreel.store import Store, open_store
from keyreel.store.submission import MAX_FAILURES
from keyreel.store.tables import AnyRow, delivery, request
from keyreel.worker.completion import MACHINE_FAILURE
from tests.server.webhook_receiver import Receiver, receiver
from tests.storm.clients import Accepted, Clients
from tests.storm.fleet import Fleet, open_fleet
from tests.storm.places import Places

FAULTS = ("kill", "pause", "cut", "drain")
KEYS = 3
TIMEOUT = 1800.0
DELIVERY_TIMEOUT = 60.0
TOLERANCE = 6
"""Places by which an answer may be off: between two looks each of three workers may take or return two requests."""
CLAIM = 1.0
"""Seconds that a claim may take from its time to its commit."""


@dataclass(frozen=True)
class Plan:
    """How large the storm is, and what happens to workers and gateways: names of methods of `Fleet`.

    crashes: of PostgreSQL and of S3, each. PostgreSQL is paused as often.
    lease: in seconds.
    """

    requests: int
    clients: int
    worker_faults: tuple[str, ...]
    gateway_faults: tuple[str, ...]
    crashes: int
    lease: float
    seed: int
    gateways: int = 2
    workers: int = 3


async def storm(folder: Path, plan: Plan) -> Counter[str]:
    """Runs the storm and checks what came of it. Returns counts to print."""
    async with open_fleet(folder, plan.lease) as fleet, receiver() as webhooks:
        async with open_store(fleet.database_url) as store, aiohttp.ClientSession() as http:
            keys = [await store.keys.create(f"client-{number}") for number in range(KEYS)]
            credentials = {new.key.id: f"Key {new.key.id}:{new.secret}" for new in keys}
            rng = random.Random(plan.seed)  # noqa: S311
            clients = Clients(fleet, http, Places(store), rng, credentials, webhooks.url)
            async with fleet.running(plan.gateways, plan.workers, _settings()), asyncio.timeout(TIMEOUT):
                async with _watching(clients.places, fleet):
                    await _blow(fleet, clients, plan)
                await _deliver_everything(store)
            assert not fleet.leftovers()
            rows = await _rows(store)
        calls = _calls(webhooks)
        broken = [*clients.broken, *_check(rows, clients.accepted, calls)]
        overtaken = _overtaken(rows)
        # A fault may undo a claim, and the request is locked until PostgreSQL has noticed.
        if len(overtaken) > fleet.faults.total():
            broken.append(f"overtaken: {overtaken}")
        errors = clients.places.errors()
        broken += [f"a place was wrong by {error}" for error in errors if error > TOLERANCE]
        logged = _logged(fleet)
        counts = _summary(rows, clients, fleet, calls, errors, logged)
        counts["overtaken while a claim was in doubt"] = len(overtaken)
    assert not broken, "\n".join([*broken[:20], str(counts)])
    return counts


def _settings() -> dict[str, str]:
    return {
        "KEYREEL_SECRET": "a secret that all processes share",
        "KEYREEL_PUBLIC_URL": "http://keyreel.example",
        "KEYREEL_PROVENANCE": "false",
        "KEYREEL_ALLOW_HOSTS": "127.0.0.1",
        "KEYREEL_GRACE": "5",
    }


@asynccontextmanager
async def _watching(places: Places, fleet: Fleet) -> AsyncIterator[None]:
    """Looks at the queue, and whether all processes run, during the block."""

    async def watch() -> None:
        while True:
            for member in fleet.members:
                member.check_alive()
            await asyncio.sleep(0.5)

    async with asyncio.TaskGroup() as tasks:
        watchers = [tasks.create_task(places.watch()), tasks.create_task(watch())]
        yield
        for watcher in watchers:
            watcher.cancel()


async def _blow(fleet: Fleet, clients: Clients, plan: Plan) -> None:
    """Runs all requests while one fault follows the other in each of three lanes."""
    left = iter(range(plan.requests))

    async def client() -> None:
        for _ in left:
            await clients.request(clients.rng.choice(list(clients.credentials)))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(plan.clients):
            tasks.create_task(client())
        for lane in _lanes(fleet, clients.rng, plan):
            tasks.create_task(_run_lane(lane, random.Random(clients.rng.random())))  # noqa: S311


Fault = Callable[[], Awaitable[None]]


def _lanes(fleet: Fleet, rng: random.Random, plan: Plan) -> Iterator[Sequence[Fault]]:
    """Yields what happens to workers, to gateways and to the servers, the first two in a random order."""
    for members, names in ((fleet.workers, plan.worker_faults), (fleet.gateways, plan.gateway_faults)):
        faults = rng.sample(names, len(names))
        yield [partial(getattr(fleet, name), rng.choice(members)) for name in faults]
    yield [fleet.crash_database, fleet.crash_bucket, fleet.pause_database] * plan.crashes


async def _run_lane(faults: Sequence[Fault], rng: random.Random) -> None:
    for fault in faults:
        await asyncio.sleep(rng.uniform(0.5, 3.0))
        await fault()


async def _deliver_everything(store: Store) -> None:
    """Waits until each webhook is delivered. Nobody waits for the leases of gateways that were killed meanwhile."""
    pending = delivery.c.state == "PENDING"
    async with store.database.write() as connection:
        await connection.execute(update(delivery).where(pending).values(due=store.database.now))
    async with asyncio.timeout(DELIVERY_TIMEOUT):
        while await store.deliveries.pending():
            await asyncio.sleep(0.2)


async def _rows(store: Store) -> list[AnyRow]:
    """Returns every request, in the order in which they were accepted, with its deliveries."""
    deliveries = select(func.count()).where(delivery.c.request_id == request.c.id, delivery.c.state == "DELIVERED")
    columns = (request, deliveries.scalar_subquery().label("deliveries"))
    async with store.database.read() as connection:
        return list((await connection.execute(select(*columns).order_by(request.c.seq))).all())


def _calls(webhooks: Receiver) -> dict[str, list[Any]]:
    """Returns the bodies of the webhook calls by request id."""
    found = defaultdict(list)
    while not webhooks.calls.empty():
        body = json.loads(webhooks.calls.get_nowait().body)
        found[body["request_id"]].append(body)
    return found


def _check(rows: Sequence[AnyRow], accepted: dict[str, Accepted], calls: dict[str, list[Any]]) -> Iterator[str]:
    """Yields what is wrong with the requests, their results and their deliveries."""
    if {row.id for row in rows} != accepted.keys():
        yield f"accepted {len(accepted)} requests, stored {len(rows)}"
    for row in rows:
        mine, called = accepted[row.id], calls[row.id]
        if (row.state, row.deliveries) != ("COMPLETED", 1):
            yield f"{row.id}: {row.state} with {row.deliveries} deliveries"
        if not called or any(call != called[0] for call in called):
            yield f"{row.id}: webhooks {called}"
        elif called[0]["payload"] != mine.result:
            yield f"{row.id}: the webhook told {called[0]['payload']}, the client {mine.result}"
        if mine.returns > row.attempt - 1:
            yield f"{row.id} came back {mine.returns} times into the queue in {row.attempt} attempts"
        if mine.failed and not (row.error_type in _LOST and row.failures >= MAX_FAILURES - 1):
            yield f"{row.id} failed: {row.error_type} {row.error} after {row.attempt} attempts"


_LOST = (WORKER_LOST.type, MACHINE_FAILURE)


def _overtaken(rows: Sequence[AnyRow]) -> set[str]:
    """Returns the requests that began after one that was behind them.

    Only of those with one attempt is it known when they began first.
    """
    once = [row for row in rows if row.attempt == 1]
    return {
        ahead.id
        for ahead, row in itertools.permutations(once, 2)
        if (ahead.key_id, ahead.pool) == (row.key_id, row.pool)
        and (ahead.priority, ahead.seq) < (row.priority, row.seq)
        and ahead.created + CLAIM < row.started < ahead.started - CLAIM
    }


def _logged(fleet: Fleet) -> Counter[str]:
    """Returns how often each event is in the logs of the processes."""
    found: Counter[str] = Counter()
    for member in fleet.members:
        for line in member.log.read_text().splitlines():
            if line.startswith("{"):
                found[json.loads(line).get("event", "")] += 1
    return found


def _summary(
    rows: Sequence[AnyRow],
    clients: Clients,
    fleet: Fleet,
    calls: dict[str, list[Any]],
    errors: Sequence[int],
    logged: Counter[str],
) -> Counter[str]:
    counts = Counter({"accepted, completed once, delivered": len(rows)})
    counts.update(fleet.faults)
    counts.update(clients.counts)
    counts["took more than one attempt"] = sum(row.attempt > 1 for row in rows)
    counts[f"failed after {MAX_FAILURES} attempts"] = sum(row.error is not None for row in rows)
    counts["late finishes refused"] = logged["lease_lost"]
    counts["webhooks called again"] = sum(len(each) - 1 for each in calls.values())
    counts["places checked"] = len(errors)
    counts["places off by one or more"] = sum(map(bool, errors))
    counts["places off at most"] = max(errors, default=0)
    return counts


def _main(plan: Plan) -> None:
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="storm-"))  # a storm that fails leaves its logs there
    print(f"storm with seed {plan.seed} in {folder}", flush=True)
    counts = asyncio.run(storm(folder, plan))
    shutil.rmtree(folder)
    for name, number in counts.items():
        print(f"{number:6} {name}")
    print(f"nothing lost, nothing doubled, nothing went back, in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=2, help="of each fault, on a worker and on a gateway")
    parser.add_argument("--lease", type=float, default=10.0, help="seconds")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))  # noqa: S311
    chosen = parser.parse_args()
    faults = FAULTS * chosen.rounds
    _main(Plan(chosen.requests, chosen.clients, faults, faults, chosen.rounds, chosen.lease, chosen.seed))
