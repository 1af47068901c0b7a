"""The FastAPI application: middleware, error handlers and all routes."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from keyreel.server.bodies import BodyLimit
from keyreel.server.dependencies import Services
from keyreel.server.errors import ERROR_TYPE, REQUEST_ID, Json, install_handlers
from keyreel.server.framing import Framing
from keyreel.server.hosts import HostDispatch
from keyreel.server.observe import Observe
from keyreel.server.openapi import Application
from keyreel.server.routes import (
    audit,
    files,
    health,
    keys,
    metrics,
    openapi,
    operate,
    page,
    platform,
    queue,
    repositories,
    run,
    storage,
)
from keyreel.version import __version__

EXPOSED = (
    REQUEST_ID,
    "x-fal-billable-units",
    ERROR_TYPE,
    "X-Fal-Request-Timeout-Type",
    "X-Fal-Retryable",
    "Accept-Ranges",
    "Content-Length",
    "Content-Range",
    "ETag",
)
"""Response headers that scripts of other origins may read."""

_NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
"""FastAPI's own spans would hold URLs with tokens, one for each poll. Keyreel traces requests: see keyreel.traces."""


def create_app(services: Services, *, is_gateway: bool = False) -> FastAPI:
    """Returns the application with all its routes. is_gateway: no worker belongs to this process."""
    app = Application(
        title="Keyreel",
        telemetry=_NO_TELEMETRY,
        version=__version__,
        description="Self-hosted video generation that speaks fal's protocol.",
        default_response_class=Json,
        redirect_slashes=False,
        docs_url="/docs",
        redoc_url=None,
        lifespan=_lifespan,
        middleware=[
            Middleware(
                CORSMiddleware,
                allow_origins=["*"],
                allow_methods=["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"],
                allow_headers=["*"],
                expose_headers=EXPOSED,
                max_age=86_400,
            ),
            Middleware(Observe),
            Middleware(Framing),
            Middleware(HostDispatch),
            Middleware(BodyLimit),
        ],
    )
    app.state.services = services
    app.state.is_gateway = is_gateway
    install_handlers(app)
    _include(app)
    return app


def create_worker_app(services: Services, names: Collection[str]) -> FastAPI:
    """Returns the application of a process that only runs the workers `names`: health and metrics."""
    app = FastAPI(
        title="Keyreel worker",
        telemetry=_NO_TELEMETRY,
        version=__version__,
        openapi_url=None,
        default_response_class=Json,
    )
    app.state.services = services
    install_handlers(app)
    app.include_router(health.worker_router(names))
    app.include_router(metrics.router)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    async with services.snapshot.running():
        yield


def _include(app: FastAPI) -> None:
    """The most frequent routes come first. The queue without a prefix comes last: its paths match almost any URL."""
    app.include_router(queue.router, prefix="/queue", include_in_schema=False)
    for module in (files, storage, health, metrics, keys, openapi, page, operate, audit, repositories, platform):
        app.include_router(module.router)
    app.include_router(run.router, prefix="/run")
    app.include_router(queue.router)
