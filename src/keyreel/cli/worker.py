"""`keyreel worker`: runs the workers of one machine in a fleet."""

import asyncio
import os
from typing import Annotated

import typer

from keyreel import traces
from keyreel.cli.serve import PRIVATE, errors_reported
from keyreel.engine.installed import check_engine
from keyreel.server.endpoints import pool_of, words
from keyreel.server.logs import configure_logs
from keyreel.server.process import Workers, listen, serve_workers, stop_on_signal
from keyreel.server.startup import check_fleet, open_services
from keyreel.settings import Settings


def worker(
    model: Annotated[str, typer.Option(help="Model: name, folder, .safetensors file or hub repository.")] = "demo",
    device: Annotated[
        list[str] | None,
        typer.Option(
            help="Device of a worker: cpu, cuda:0, ... Several that share each video: cuda:0,cuda:1. Can be repeated "
            "for several workers. Default: the fastest."
        ),
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option(
            help="Queue that the workers take requests from. Default: that of the model in KEYREEL_MODELS, or else "
            "`default`."
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address for health checks and metrics.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port for health checks and metrics.")] = 8001,
) -> None:
    """Run workers for gateways on other machines (`keyreel serve --no-worker`), on a shared PostgreSQL database.

    SIGTERM drains: the workers take no new request and finish or hand back the ones they have.
    """
    configure_logs()
    os.umask(PRIVATE)
    with errors_reported(), traces.exported():
        settings = Settings()
        check_engine()
        workers = Workers(model, tuple(device or [None]), pool=pool or pool_of(model, words(settings.models)))
        asyncio.run(_run(settings, host, port, workers))


async def _run(settings: Settings, host: str, port: int, workers: Workers) -> None:
    check_fleet(settings)
    stop = asyncio.Event()
    with listen(host, port) as listener:
        async with open_services(settings, settings.public_url or "") as services:
            stop_on_signal(stop)
            shown = listener.getsockname()
            typer.echo(f"Keyreel worker: health and metrics at http://{shown[0]}:{shown[1]}")
            await serve_workers(services, listener, [workers], stop)
