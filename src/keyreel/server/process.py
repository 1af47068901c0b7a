"""The server process: HTTP, housekeeping, webhooks and one worker per device. It shuts down cleanly."""

import asyncio
import ctypes
import gc
import os
import re
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import structlog
import uvicorn
from fastapi import FastAPI

from keyreel.errors import KeyreelError
from keyreel.files.disk import ANY_DISK, Disk
from keyreel.files.objects import sweep_files
from keyreel.net.addresses import guarded_session
from keyreel.net.certificates import Certificate
from keyreel.server.app import create_app, create_worker_app
from keyreel.server.connections import Connection, Doorman
from keyreel.server.dependencies import Services
from keyreel.server.endpoints import DEFAULT_POOL
from keyreel.server.startup import address_policy, trusted_proxies
from keyreel.server.webhooks import RETRY_TIMEOUT, deliver_forever
from keyreel.settings import Settings
from keyreel.store import STORE_ERRORS, Store, Topic
from keyreel.store.errors import described
from keyreel.worker.context import WorkerContext
from keyreel.worker.process import ENGINE_PROCESS
from keyreel.worker.supervisor import supervise
from keyreel.worker.waiting import wait_for_any

REAP_PERIOD = 5.0
"""Seconds between two checks for expired leases, start timeouts and old requests."""
SWEEP_PERIOD = 60.0
"""Seconds between two deletions of expired files."""
AUDIT_PERIOD = 60.0
"""Seconds between two entries about refused keys from one address, and between two deletions of old entries."""
MEMORY_PERIOD = 60.0
"""Seconds between two times at which freed memory goes back to the system."""
BACKLOG = 2048
TICKS = 5
"""Tenths of a second between two checks of the connections."""
THREADS = 64
KEEP_ALIVE = 75
GRACE = 3
"""Seconds that open responses get at shutdown. Streams and synchronous runs could take much longer."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Workers:
    """One worker per item of `devices`. `engine_process` is the command that each one runs.

    devices: names of devices, or several comma-separated for a worker that draws each video on them; None: the fastest.
    """

    model: str
    devices: tuple[str | None, ...]
    engine_process: tuple[str, ...] = ENGINE_PROCESS
    pool: str = DEFAULT_POOL


class _Server(uvicorn.Server):
    """Ignores signals: HTTP continues until the workers have handed back their requests."""

    def __init__(self, config: uvicorn.Config, doorman: Doorman) -> None:
        super().__init__(config)
        self._doorman = doorman

    async def on_tick(self, counter: int) -> bool:
        """uvicorn calls this ten times a second."""
        if counter % TICKS == 0:
            self._doorman.check(asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int) -> socket.socket:
    """Opens the listening socket. Clients may connect at once; they are served when the server is up.

    Raises KeyreelError when the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise KeyreelError(f"Cannot listen on {host}, port {port}: {os.strerror(error.errno or 0)}.") from None
    # asyncio does not set it for sockets made this way, and without it each response takes 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


async def serve(
    services: Services,
    listener: socket.socket,
    workers: Sequence[Workers],
    stop: asyncio.Event,
    tls: Certificate | None = None,
    *,
    is_gateway: bool = False,
) -> None:
    """Serves on `listener` until `stop` is set; over HTTPS when there is a certificate.

    is_gateway: the process is ready without a worker.
    """
    # Resolving an unknown host name blocks a thread for a long time, and every webhook and input may name another host.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
    async with _serving_http(create_app(services, is_gateway=is_gateway), listener, stop, tls):
        await _run_tasks(services, workers, stop)


async def serve_workers(
    services: Services, listener: socket.socket, workers: Sequence[Workers], stop: asyncio.Event
) -> None:
    """Runs workers until `stop` is set, with their health and metrics on `listener`. The API is on gateways."""
    named = _named(services.settings, workers)
    async with _serving_http(create_worker_app(services, list(named)), listener, stop), asyncio.TaskGroup() as tasks:
        tasks.create_task(_reap(services.store, stop))
        # Others can take what this machine has no room for. A single machine has to finish what it has accepted.
        disk = Disk((services.settings.data_dir,), services.settings.min_free_bytes)
        _start(tasks, services, named, stop, disk)


def _named(settings: Settings, workers: Sequence[Workers]) -> dict[str, tuple[Workers, str | None]]:
    """Returns the device of each worker, by the worker's name."""
    return {worker_name(settings, device, each.pool): (each, device) for each in workers for device in each.devices}


def _start(
    tasks: asyncio.TaskGroup,
    services: Services,
    named: dict[str, tuple[Workers, str | None]],
    stop: asyncio.Event,
    disk: Disk = ANY_DISK,
) -> None:
    for name, (workers, device) in named.items():
        tasks.create_task(_supervise(services, workers, name, device, stop, disk))


def _new_server(app: FastAPI, settings: Settings, tls: Certificate | None) -> uvicorn.Server:
    proxies = trusted_proxies(settings)
    doorman = Doorman(settings.max_connections, settings.max_connections_per_address, proxies)
    config = uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", partial(Connection, doorman)),
        proxy_headers=bool(proxies),
        forwarded_allow_ips=[str(network) for network in proxies],
        log_config=None,
        access_log=False,
        ws="none",  # `Connection` closes them with a reason
        timeout_graceful_shutdown=GRACE,
        # Longer than clients keep idle connections, so that none sends into a connection that is being closed.
        timeout_keep_alive=KEEP_ALIVE,
        ssl_certfile=tls.certificate if tls else None,
        ssl_keyfile=tls.key if tls else None,
    )
    return _Server(config, doorman)


def stop_on_signal(stop: asyncio.Event) -> None:
    """The first SIGINT or SIGTERM sets `stop`; the second has its default effect."""
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        stop.set()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)


@asynccontextmanager
async def _serving_http(
    app: FastAPI, listener: socket.socket, stop: asyncio.Event, tls: Certificate | None = None
) -> AsyncIterator[None]:
    """Answers requests during the block, and the open ones after it. Sets `stop` when the server ends by itself."""
    server = _new_server(app, app.state.services.settings, tls)
    http = asyncio.create_task(_serve_http(server, listener, stop))
    try:
        yield
    finally:
        server.should_exit = True
        await http


async def _serve_http(server: uvicorn.Server, listener: socket.socket, stop: asyncio.Event) -> None:
    # A full collection would walk all that was imported, and keep every call waiting for 0.2 s.
    gc.collect()
    gc.freeze()
    try:
        await server.serve([listener])
    finally:
        stop.set()


async def _run_tasks(services: Services, workers: Sequence[Workers], stop: asyncio.Event) -> None:
    """Runs everything but HTTP."""
    policy = address_policy(services.settings)
    async with guarded_session(policy, RETRY_TIMEOUT) as session, asyncio.TaskGroup() as tasks:
        tasks.create_task(_reap(services.store, stop))
        tasks.create_task(_every(SWEEP_PERIOD, lambda: sweep_files(services.store, services.objects), stop))
        tasks.create_task(_every(AUDIT_PERIOD, lambda: _keep_audit(services), stop))
        tasks.create_task(_every(MEMORY_PERIOD, lambda: asyncio.to_thread(return_freed_memory), stop))
        tasks.create_task(deliver_forever(services.store, session, services.signer, services.webhook_urls, stop))
        _start(tasks, services, _named(services.settings, workers), stop)


def return_freed_memory() -> None:
    """Gives the system what was freed. glibc keeps the gaps between what is in use, so a busy server would grow."""
    with suppress(AttributeError):  # another library than glibc
        ctypes.CDLL(None).malloc_trim(0)


async def _keep_audit(services: Services) -> None:
    await services.refusals.flush()
    await services.store.audit.forget(services.settings.audit_retention)


def worker_name(settings: Settings, device: str | None, pool: str = DEFAULT_POOL) -> str:
    """Returns the name of the worker on a device. Those of other pools have the pool in it: a device may have both.

    A name that stays the same lets a restarted worker take back its requests at once. On PostgreSQL, where containers
    on several machines may have one host name, it is random: there a dead worker's requests wait for their leases.
    """
    host = settings.worker_name or socket.gethostname()
    is_shared = settings.database_url is not None and not settings.worker_name
    suffix = f"-{secrets.token_hex(3)}" if is_shared else ""
    parts = (host, None if pool == DEFAULT_POOL else re.sub(r"[^\w.-]", "-", pool), device or "device")
    return "-".join(filter(None, parts)) + suffix


async def _reap(store: Store, stop: asyncio.Event) -> None:
    """Reaps now and then, and whenever a request that was submitted here has waited as long as its client wanted."""
    while not stop.is_set():
        deadline = store.database.changes.of(Topic.DEADLINE)
        await _tidy(store.queue.reap)
        await wait_for_any(stop, deadline, timeout=REAP_PERIOD)


async def _every(seconds: float, action: Callable[[], Awaitable[Any]], stop: asyncio.Event) -> None:
    while not stop.is_set():
        await _tidy(action)
        await wait_for_any(stop, timeout=seconds)


async def _tidy(action: Callable[[], Awaitable[Any]]) -> None:
    try:
        await action()
    except STORE_ERRORS as error:
        _log.error("housekeeping failed", **described(error))


async def _supervise(
    services: Services, workers: Workers, name: str, device: str | None, stop: asyncio.Event, disk: Disk
) -> None:
    context = WorkerContext(
        store=services.store,
        objects=services.objects,
        links=services.links,
        settings=services.settings,
        policy=address_policy(services.settings),
        spool=services.settings.data_dir / "spool",
        name=name,
        pool=workers.pool,
        grace=services.settings.grace,
        disk=disk,
    )
    await supervise(context, model=workers.model, device=device, stop=stop, engine_process=workers.engine_process)
