"""Is the process alive; can it serve."""

from fastapi import APIRouter

from keyreel import __version__
from keyreel.server.dependencies import CurrentServices
from keyreel.server.errors import Json

router = APIRouter(tags=["operation"])


@router.get("/health", summary="State of this server")
async def health(services: CurrentServices) -> Json:
    workers = await services.store.workers.alive()
    listed = [
        {"name": worker.name, "device": worker.device, "model": worker.model, "ready": worker.ready}
        for worker in workers
    ]
    return Json({"status": "ok", "version": __version__, "workers": listed})


@router.get("/health/live", summary="Is the process alive?")
async def live() -> Json:
    return Json({"status": "ok"})


@router.get("/health/ready", summary="Is a model loaded?")
async def ready(services: CurrentServices) -> Json:
    """503 until a worker has its model loaded. Requests are accepted all the same: they wait."""
    workers = await services.store.workers.alive()
    if any(worker.ready for worker in workers):
        return Json({"status": "ok"})
    return Json({"status": "loading" if workers else "no worker"}, 503)
