"""What Prometheus can ask: counters of this process, and the queue as it is at that moment."""

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from starlette.responses import Response

from keyreel.server.dependencies import CurrentServices, Services
from keyreel.server.measures import DELIVERIES, DEPTH, OLDEST, WORKERS

router = APIRouter(tags=["operation"])


@router.get("/metrics", summary="Metrics for Prometheus")
async def metrics(services: CurrentServices) -> Response:
    """The worker's own are here, too, when it runs in this process."""
    await _measure(services)
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)


async def _measure(services: Services) -> None:
    for gauge in (DEPTH, OLDEST, WORKERS):
        gauge.clear()  # what has gone away is not zero but absent
    for depth in await services.store.requests.depths():
        DEPTH.labels(depth.pool, depth.state).set(depth.requests)
        OLDEST.labels(depth.pool, depth.state).set(depth.oldest)
    for worker in await services.store.workers.alive():
        WORKERS.labels(worker.pool, str(worker.ready).lower()).inc()
    DELIVERIES.set(await services.store.deliveries.pending())
