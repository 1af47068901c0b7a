"""`keyreel serve`: the server with its workers."""

import asyncio
import os
import secrets
import shlex
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import certifi
import typer

from keyreel import traces
from keyreel.cli.local_server import LocalServer
from keyreel.engine.installed import check_engine
from keyreel.errors import KeyreelError
from keyreel.fal.endpoints import MULTICONDITIONING
from keyreel.net.certificates import Certificate, make_bundle, server_certificate
from keyreel.server.credentials import LOCAL
from keyreel.server.endpoints import pool_of, words
from keyreel.server.logs import configure_logs
from keyreel.server.process import Workers, listen, stop_on_signal
from keyreel.server.process import serve as serve_process
from keyreel.server.startup import check_fleet, ensure_key, open_services
from keyreel.settings import Settings
from keyreel.store.records import NewKey
from keyreel.version import __version__

PRIVATE = 0o077
"""The umask of servers and workers: what they write is for their own user."""


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on. 0.0.0.0 listens on all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on. 0 chooses a free port.")] = 8000,
    data_dir: Annotated[Path | None, typer.Option(help="Folder for the database and the files.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Model: name, folder, .safetensors file or hub repository. Can be repeated: each endpoint uses the "
            "model that it was made for. Default: demo."
        ),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            help="Device of a worker: cpu, cuda:0, ... Several that share each video: cuda:0,cuda:1. Can be repeated "
            "for several workers; with several models, one device for each model, or one for all. Default: the "
            "fastest."
        ),
    ] = None,
    worker: Annotated[bool, typer.Option(help="Run workers here, or only queue requests.")] = True,
    tls: Annotated[bool, typer.Option("--tls", help="Serve HTTPS, with a certificate that Keyreel issues.")] = False,
) -> None:
    """Serve fal's API, with queue, workers and files on this machine."""
    configure_logs()
    os.umask(PRIVATE)
    with errors_reported(), traces.exported():
        settings = Settings().model_copy(update={"data_dir": data_dir} if data_dir else {})
        if worker:
            check_engine(", or start the server without workers: keyreel serve --no-worker")
        models = tuple(model or ["demo"])
        if worker and (len(models) > 1 or not settings.models):
            settings = settings.model_copy(update={"models": ",".join(models)})
        workers = workers_of(models, tuple(device or [None]), words(settings.models)) if worker else ()
        asyncio.run(_serve(settings, host, port, workers, tls=tls))


def workers_of(models: tuple[str, ...], devices: tuple[str | None, ...], known: tuple[str, ...]) -> tuple[Workers, ...]:
    """Returns the workers of each model: one model has all devices, several have one device each, or share one.

    known: the models of the server or the fleet. Raises KeyreelError if the numbers do not fit, or a model comes twice.
    """
    if len(models) == 1:
        return (Workers(models[0], devices, pool=pool_of(models[0], known)),)
    if len(set(models)) < len(models):
        raise KeyreelError("--model names a model twice. Name it once, with a --device for each of its workers.")
    if len(devices) not in (1, len(models)):
        raise KeyreelError(f"There are {len(models)} --model and {len(devices)} --device: give one, or one per model.")
    pairs = zip(models, devices * (len(models) if len(devices) == 1 else 1), strict=True)
    return tuple(Workers(model, (device,), pool=pool_of(model, known)) for model, device in pairs)


@contextmanager
def errors_reported() -> Iterator[None]:
    """Prints the KeyreelErrors of the block, and ends the command with status 1."""
    failures: list[BaseException] = []
    try:
        yield
    except* KeyreelError as errors:
        failures.extend(_flattened(errors))
    for failure in failures:
        typer.secho(str(failure), fg=typer.colors.RED, err=True)
    if failures:
        raise typer.Exit(1)


async def _serve(settings: Settings, host: str, port: int, workers: tuple[Workers, ...], *, tls: bool) -> None:
    if settings.database_url and not workers:
        check_fleet(settings)
    with listen(host, port) as listener:
        trust = _trust(settings, host) if tls else None
        url = _url(host, listener, "https" if trust else "http")
        secret = secrets.token_hex(32)
        stop = asyncio.Event()
        async with open_services(settings, url, secret, has_worker=bool(workers)) as services:
            new_key = await ensure_key(services.store, settings.admin_key)
            local = LocalServer(url, f"{LOCAL}:{secret}", os.getpid(), str(trust.authority) if trust else None)
            with local.announced(settings.data_dir):
                stop_on_signal(stop)
                typer.echo(_welcome(services.links.base_url, new_key, trust, settings.data_dir))
                certificate = trust.served if trust else None
                await serve_process(services, listener, workers, stop, certificate, is_gateway=not workers)


@dataclass(frozen=True, slots=True)
class _Trust:
    """The server's certificate, and what clients need to trust it. bundle: the authority and the public authorities."""

    served: Certificate
    authority: Path
    bundle: Path


def _trust(settings: Settings, host: str) -> _Trust:
    public = urlsplit(settings.public_url or "").hostname
    names = dict.fromkeys(filter(None, ("localhost", "127.0.0.1", "::1", socket.gethostname(), host, public)))
    served, authority = server_certificate(settings.data_dir / "tls", tuple(names))
    return _Trust(served, authority, make_bundle(authority, Path(certifi.where())))


def _url(host: str, listener: socket.socket, scheme: str) -> str:
    """Returns the server's URL as seen from this machine."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    port = listener.getsockname()[1]
    return f"{scheme}://[{shown}]:{port}" if ":" in shown else f"{scheme}://{shown}:{port}"


def _welcome(url: str, new_key: NewKey | None, trust: _Trust | None, data_dir: Path) -> str:
    credentials = f"{new_key.key.id}:{new_key.secret}" if new_key else "<id>:<secret>"
    # A fragment is not sent to the server, so neither proxies nor logs see the key.
    page = f"{url}/#key={credentials}" if new_key else url
    browser = "Open this address in a browser"
    hint = (
        f"{browser}: it signs you in. The key is shown only once."
        if new_key
        else f"{browser}. For another key: {_keys_create(data_dir)}"
    )
    curl = f"curl --cacert {trust.authority}" if trust else "curl"
    return f"""
Keyreel {__version__} is at {page}
{hint}

  curl        {curl} {url}/run/{MULTICONDITIONING.id} \\
                -H "Authorization: Key {credentials}" -H "Content-Type: application/json" \\
                -d '{{"prompt": "a red ball rolls to the right", "resolution": "480p", "number_of_frames": 41}}'

  JavaScript  fal.config({{
                credentials: "{credentials}",
                proxyUrl: {{ url: "{url}/api/fal/proxy", when: "always" }},
              }});
              In Node, @fal-ai/client before 1.10 ignores proxyUrl and calls fal. For these, and for
              programs that you do not want to change: keyreel wrap --server {url} -- node app.mjs
{_python(url, credentials, trust)}
"""


def _keys_create(data_dir: Path) -> str:
    """Returns the command that creates a key for the server of this data folder."""
    command = "keyreel keys create NAME"
    return command if data_dir == Settings().data_dir else f"{command} --data-dir {shlex.quote(str(data_dir))}"


def _python(url: str, credentials: str, trust: _Trust | None) -> str:
    """Returns the lines for fal's Python client. It uses HTTPS only, unless its constants are changed."""
    if trust is None:
        return f"""
  Python      import os, fal_client.client  # 0.5 or later
              os.environ["FAL_KEY"] = "{credentials}"
              fal_client.client.QUEUE_URL_FORMAT = "{url}/queue/"
              fal_client.client.RUN_URL_FORMAT = "{url}/run/"
              fal_client.client.REST_URL = fal_client.client.CDN_URL = "{url}"
"""
    host = url.removeprefix("https://")
    return f"""              First: export NODE_EXTRA_CA_CERTS={trust.authority}

  Python      export FAL_KEY="{credentials}" SSL_CERT_FILE={trust.bundle} \\
                FAL_RUN_HOST={host}/run FAL_QUEUE_RUN_HOST={host}/queue
              From fal_client 0.11 on; older ones call fal. Its uploads still go to fal: use
              fal_client.encode_file instead. For both: keyreel wrap --server {url} -- python app.py
"""


def _flattened(group: BaseExceptionGroup[KeyreelError]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _flattened(error)
        else:
            yield error
