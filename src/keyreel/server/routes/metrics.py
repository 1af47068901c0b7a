"""Metrics for Prometheus: the counters of this process, and the current queue."""

import asyncio
from dataclasses import dataclass
from math import nan

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from starlette.responses import PlainTextResponse, Response

from keyreel.metrics import DATABASE_UP, DISK_FLOOR, DISK_FREE, QUEUE_OLDEST, QUEUE_REQUESTS, WEBHOOKS_PENDING, WORKERS
from keyreel.server.dependencies import OPEN, CurrentServices, Services
from keyreel.store import STORE_ERRORS, Store
from keyreel.store.records import Depth, Worker

PATIENCE = 5.0
"""Seconds to wait for the database. Prometheus waits ten for the answer."""

router = APIRouter(tags=["operation"], dependencies=[OPEN])


@dataclass(frozen=True, slots=True)
class _Figures:
    depths: list[Depth]
    workers: list[Worker]
    webhooks: int


@router.get("/metrics", summary="Get metrics for Prometheus", response_class=PlainTextResponse)
async def metrics(services: CurrentServices) -> Response:
    """Includes the metrics of the workers in this process."""
    await _measure(services)
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)


async def _measure(services: Services) -> None:
    DISK_FREE.set(services.disk.free)
    DISK_FLOOR.set(services.disk.floor)
    figures = await _figures(services.store)
    # From here on nothing waits: two calls at once would count the workers twice.
    for gauge in (QUEUE_REQUESTS, QUEUE_OLDEST, WORKERS):
        gauge.clear()  # removes the labels that no longer exist: they must be absent, not zero
    DATABASE_UP.set(figures is not None)
    WEBHOOKS_PENDING.set(figures.webhooks if figures else nan)
    for depth in figures.depths if figures else ():
        QUEUE_REQUESTS.labels(depth.pool, depth.state).set(depth.requests)
        QUEUE_OLDEST.labels(depth.pool, depth.state).set(depth.oldest)
    for worker in figures.workers if figures else ():
        WORKERS.labels(worker.pool, str(worker.ready).lower()).inc()


async def _figures(store: Store) -> _Figures | None:
    """Returns what only the database knows, or None if it fails or does not answer in time.

    The counters of the process must be seen above all then: they say how many calls fail.
    """
    # A late read goes on by itself: a statement that is cancelled costs its connection.
    reading = asyncio.create_task(_read(store))
    await asyncio.wait([reading], timeout=PATIENCE)
    return reading.result() if reading.done() else None


async def _read(store: Store) -> _Figures | None:
    try:
        depths, workers = await store.requests.depths(), await store.workers.alive()
        return _Figures(depths, workers, await store.deliveries.pending())
    except STORE_ERRORS:
        return None
