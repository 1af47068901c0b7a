"""`keyreel serve`: the whole service in one process."""

import asyncio
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from keyreel import __version__
from keyreel.cli.local_server import LocalServer
from keyreel.errors import KeyreelError
from keyreel.server.credentials import LOCAL
from keyreel.server.endpoints import MULTICONDITIONING
from keyreel.server.logs import configure_logs
from keyreel.server.process import Workers, listen, stop_on_signal
from keyreel.server.process import serve as serve_process
from keyreel.server.startup import ensure_key, open_services
from keyreel.settings import Settings
from keyreel.store.records import NewKey


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on. 0.0.0.0: all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on. 0: a free one.")] = 8000,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the database and the files.")] = None,
    model: Annotated[str, typer.Option(help="Name, folder, file or hub repository of the model.")] = "demo",
    device: Annotated[
        list[str] | None,
        typer.Option(help="Device of a worker: cpu, cuda:0, ... Can be repeated. Default: the fastest."),
    ] = None,
    worker: Annotated[bool, typer.Option(help="Run requests here, or only take them.")] = True,
) -> None:
    """Serve fal's API: queue, workers and files on one machine."""
    configure_logs()
    settings = Settings().model_copy(update={"data_dir": data_dir} if data_dir else {})
    workers = Workers(model, tuple(device or [None])) if worker else None
    failures: list[BaseException] = []
    try:
        asyncio.run(_serve(settings, host, port, workers))
    except* KeyreelError as errors:
        failures.extend(_leaves(errors))
    for failure in failures:
        typer.secho(str(failure), fg=typer.colors.RED, err=True)
    if failures:
        raise typer.Exit(1)


async def _serve(settings: Settings, host: str, port: int, workers: Workers | None) -> None:
    with listen(host, port) as listener:
        url = _url(host, listener)
        secret = secrets.token_hex(32)
        stop = asyncio.Event()
        async with open_services(settings, url, secret) as services:
            new_key = await ensure_key(services.store, settings.admin_key)
            with LocalServer(url, f"{LOCAL}:{secret}", os.getpid()).announced(settings.data_dir):
                typer.echo(_welcome(services.links.base_url, new_key))
                stop_on_signal(stop)
                await serve_process(services, listener, workers, stop)


def _url(host: str, listener: socket.socket) -> str:
    """As seen from this machine."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    port = listener.getsockname()[1]
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def _welcome(url: str, new_key: NewKey | None) -> str:
    credentials = f"{new_key.key.id}:{new_key.secret}" if new_key else "<id>:<secret>"
    # After the #, where neither proxies nor logs see it.
    page = f"{url}/#key={credentials}" if new_key else url
    hint = "The key is shown this once." if new_key else "Keys: keyreel keys create NAME"
    return f"""
Keyreel {__version__} is at {page}
{hint}

  curl        curl {url}/run/{MULTICONDITIONING.id} \\
                -H "Authorization: Key {credentials}" -H "Content-Type: application/json" \\
                -d '{{"prompt": "a red ball rolls to the right"}}'

  JavaScript  fal.config({{
                credentials: "{credentials}",
                proxyUrl: {{ url: "{url}/api/fal/proxy", when: "always" }},
              }});

  Python      import os, fal_client.client
              os.environ["FAL_KEY"] = "{credentials}"
              fal_client.client.QUEUE_URL_FORMAT = "{url}/queue/"
              fal_client.client.RUN_URL_FORMAT = "{url}/run/"
              fal_client.client.REST_URL = fal_client.client.CDN_URL = "{url}"
"""


def _leaves(group: BaseExceptionGroup[KeyreelError]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
