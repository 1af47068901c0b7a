"""Metrics for Prometheus: the counters of this process, and the current queue."""

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from starlette.responses import PlainTextResponse, Response

from keyreel.metrics import DISK_FLOOR, DISK_FREE, QUEUE_OLDEST, QUEUE_REQUESTS, WEBHOOKS_PENDING, WORKERS
from keyreel.server.dependencies import OPEN, CurrentServices, Services

router = APIRouter(tags=["operation"], dependencies=[OPEN])


@router.get("/metrics", summary="Get metrics for Prometheus", response_class=PlainTextResponse)
async def metrics(services: CurrentServices) -> Response:
    """Includes the metrics of the workers in this process."""
    await _measure(services)
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)


async def _measure(services: Services) -> None:
    for gauge in (QUEUE_REQUESTS, QUEUE_OLDEST, WORKERS):
        gauge.clear()  # removes the labels that no longer exist: they must be absent, not zero
    for depth in await services.store.requests.depths():
        QUEUE_REQUESTS.labels(depth.pool, depth.state).set(depth.requests)
        QUEUE_OLDEST.labels(depth.pool, depth.state).set(depth.oldest)
    for worker in await services.store.workers.alive():
        WORKERS.labels(worker.pool, str(worker.ready).lower()).inc()
    DISK_FREE.set(services.disk.free)
    DISK_FLOOR.set(services.disk.floor)
    WEBHOOKS_PENDING.set(await services.store.deliveries.pending())
