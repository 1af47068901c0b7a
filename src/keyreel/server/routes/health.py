"""Health checks: whether the process is alive, and whether it can serve."""

from fastapi import APIRouter

from keyreel.server.dependencies import CurrentServices
from keyreel.server.errors import Json
from keyreel.version import __version__

router = APIRouter(tags=["operation"])


@router.get("/health", summary="Get the version and the workers")
async def health(services: CurrentServices) -> Json:
    workers = await services.store.workers.alive()
    listed = [
        {"name": worker.name, "device": worker.device, "model": worker.model, "ready": worker.ready}
        for worker in workers
    ]
    return Json({"status": "ok", "version": __version__, "workers": listed})


@router.get("/health/live", summary="Check that the process is alive")
async def live() -> Json:
    return Json({"status": "ok"})


@router.get("/health/ready", summary="Check that a model is loaded")
async def ready(services: CurrentServices) -> Json:
    """Answers 503 until a worker has loaded its model. The queue accepts requests before that; they wait."""
    workers = await services.store.workers.alive()
    if any(worker.ready for worker in workers):
        return Json({"status": "ok"})
    return Json({"status": "loading" if workers else "no worker"}, 503)
