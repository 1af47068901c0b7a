"""Metrics for Prometheus: the counters of this process, and the current queue."""

import asyncio
from math import nan

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from starlette.responses import PlainTextResponse, Response

from keyreel.metrics import DATABASE_UP, DISK_FLOOR, DISK_FREE, QUEUE_OLDEST, QUEUE_REQUESTS, WEBHOOKS_PENDING, WORKERS
from keyreel.server.dependencies import OPEN, CurrentServices, Services
from keyreel.store import STORE_ERRORS, Store

PATIENCE = 5.0
"""Seconds to wait for the database. Prometheus waits ten for the answer."""

router = APIRouter(tags=["operation"], dependencies=[OPEN])


@router.get("/metrics", summary="Get metrics for Prometheus", response_class=PlainTextResponse)
async def metrics(services: CurrentServices) -> Response:
    """Includes the metrics of the workers in this process."""
    await _measure(services)
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)


async def _measure(services: Services) -> None:
    DISK_FREE.set(services.disk.free)
    DISK_FLOOR.set(services.disk.floor)
    for gauge in (QUEUE_REQUESTS, QUEUE_OLDEST, WORKERS):
        gauge.clear()  # removes the labels that no longer exist: they must be absent, not zero
    try:
        async with asyncio.timeout(PATIENCE):
            await _measure_store(services.store)
    except STORE_ERRORS:
        # The counters must be seen above all now: they say how many calls fail.
        WEBHOOKS_PENDING.set(nan)
        DATABASE_UP.set(0)


async def _measure_store(store: Store) -> None:
    for depth in await store.requests.depths():
        QUEUE_REQUESTS.labels(depth.pool, depth.state).set(depth.requests)
        QUEUE_OLDEST.labels(depth.pool, depth.state).set(depth.oldest)
    for worker in await store.workers.alive():
        WORKERS.labels(worker.pool, str(worker.ready).lower()).inc()
    WEBHOOKS_PENDING.set(await store.deliveries.pending())
    DATABASE_UP.set(1)
