"""Health checks: whether the process is alive, and whether it can serve."""

from collections.abc import Collection
from dataclasses import asdict

from fastapi import APIRouter
from starlette.requests import Request

from keyreel.server.dependencies import OPEN, CurrentServices
from keyreel.server.errors import Json
from keyreel.version import __version__
from keyreel.worker.abilities import abilities_of

router = APIRouter(tags=["operation"], dependencies=[OPEN])


@router.get("/health", summary="Get the version, the workers and what their models can do")
async def health(services: CurrentServices) -> Json:
    workers = await services.store.workers.alive()
    listed = [asdict(worker) | asdict(abilities_of(worker.model, services.settings)) for worker in workers]
    return Json({"status": "ok", "version": __version__, "workers": listed})


@router.get("/health/live", summary="Check that the process is alive")
async def live() -> Json:
    return Json({"status": "ok"})


@router.get("/health/ready", summary="Check that the server can do its work")
async def ready(request: Request, services: CurrentServices) -> Json:
    """Answers 503 until a worker has loaded its model; a gateway, which has no workers, until its database answers.

    The queue accepts requests before that; they wait. While the disk is too full for new requests, the status says so,
    with 200: the others must still be able to read and to delete.
    """
    workers = await services.store.workers.alive()
    if request.app.state.is_gateway or any(worker.ready for worker in workers):
        return Json({"status": "low disk" if services.disk.is_low else "ok"})
    return Json({"status": "loading" if workers else "no worker"}, 503)


def worker_router(names: Collection[str]) -> APIRouter:
    """Returns the health checks of a process that only runs the workers `names`."""
    worker_routes = APIRouter(dependencies=[OPEN])
    worker_routes.add_api_route("/health/live", live)

    @worker_routes.get("/health/ready")
    async def workers_ready(services: CurrentServices) -> Json:
        """Answers 503 until each of the workers has loaded its model."""
        loaded = {worker.name for worker in await services.store.workers.alive() if worker.ready}
        is_ready = loaded.issuperset(names)
        return Json({"status": "ok" if is_ready else "loading"}, 200 if is_ready else 503)

    return worker_routes
