"""One process: HTTP, housekeeping, webhooks and, where there is a device, workers. Ends in good order."""

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import structlog
import uvicorn
from sqlalchemy.exc import SQLAlchemyError

from keyreel.addresses import guarded_session
from keyreel.certificates import Certificate
from keyreel.errors import KeyreelError
from keyreel.objects import sweep_files
from keyreel.server.app import create_app
from keyreel.server.dependencies import Services
from keyreel.server.startup import address_policy
from keyreel.webhooks import RETRY_TIMEOUT, deliver_forever

REAP = 5.0
SWEEP = 60.0
BACKLOG = 2048
THREADS = 64
KEEP_ALIVE = 75
GRACE = 3
"""Seconds that answers under way get at the end; streams and synchronous runs would take for ever."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Workers:
    """One per device. None is the fastest device. `child`: the program on it, where that is not the usual one."""

    model: str
    devices: tuple[str | None, ...]
    child: tuple[str, ...] = ()


class _Server(uvicorn.Server):
    """Leaves the signals to us: HTTP goes on until the workers have handed back their requests."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int) -> socket.socket:
    """Raises KeyreelError. Clients may connect at once: they are served when the server is up."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise KeyreelError(f"Cannot listen on {host}, port {port}: {error.strerror}.") from None
    # asyncio forgets it for sockets made like this one, and then each answer takes 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


async def serve(
    services: Services,
    listener: socket.socket,
    workers: Workers | None,
    stop: asyncio.Event,
    tls: Certificate | None = None,
) -> None:
    """Serves on `listener` until `stop` is set; with a certificate by HTTPS."""
    # A name that does not resolve holds a thread for long, and every webhook and input may name another one.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
    config = uvicorn.Config(
        create_app(services),
        log_config=None,
        access_log=False,
        # A WebSocket's handshake is answered like any GET: there is no such path.
        ws="none",
        timeout_graceful_shutdown=GRACE,
        # Longer than clients keep idle connections: none of them sends into one that is just being closed.
        timeout_keep_alive=KEEP_ALIVE,
        ssl_certfile=tls.certificate if tls else None,
        ssl_keyfile=tls.key if tls else None,
    )
    server = _Server(config)
    http = asyncio.create_task(_serve_http(server, listener, stop))
    try:
        await _work(services, workers, stop)
    finally:
        server.should_exit = True
        await http


def stop_on_signal(stop: asyncio.Event) -> None:
    """The first signal asks for a good end, the second one does what it always does."""
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        stop.set()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)


async def _serve_http(server: uvicorn.Server, listener: socket.socket, stop: asyncio.Event) -> None:
    try:
        await server.serve([listener])
    finally:
        stop.set()


async def _work(services: Services, workers: Workers | None, stop: asyncio.Event) -> None:
    """Everything but HTTP."""
    policy = address_policy(services.settings)
    async with guarded_session(policy, RETRY_TIMEOUT) as session, asyncio.TaskGroup() as tasks:
        tasks.create_task(_every(REAP, services.store.queue.reap, stop))
        tasks.create_task(_every(SWEEP, lambda: sweep_files(services.store, services.objects), stop))
        tasks.create_task(deliver_forever(services.store, session, services.signer, stop))
        if workers:
            for device in workers.devices:
                tasks.create_task(_supervise(services, workers, device, stop))


async def _every(seconds: float, action: Callable[[], Awaitable[Any]], stop: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            await action()
        except (SQLAlchemyError, OSError):
            _log.exception("housekeeping failed")
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await stop.wait()


async def _supervise(services: Services, workers: Workers, device: str | None, stop: asyncio.Event) -> None:
    from keyreel.worker.context import WorkerContext
    from keyreel.worker.process import CHILD
    from keyreel.worker.supervisor import supervise

    context = WorkerContext(
        store=services.store,
        objects=services.objects,
        links=services.links,
        settings=services.settings,
        policy=address_policy(services.settings),
        spool=services.settings.data_dir / "spool",
        name=f"{socket.gethostname()}-{device or 'device'}",
    )
    await supervise(context, model=workers.model, device=device, stop=stop, child=workers.child or CHILD)
