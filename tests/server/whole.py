"""The complete server in another process, with a fake engine process. Run as `python -m tests.server.whole JSON`.

It can be made to die at a given moment, and its periods can be shortened.
"""

import asyncio
import json
import logging
import os
import pkgutil
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import structlog

from keyreel.server.process import Workers, listen, serve, stop_on_signal
from keyreel.server.startup import ensure_key, open_services
from keyreel.settings import Settings
from tests.worker.conftest import FAKE_ENGINE_PROCESS, SMALL

KEY = "boss:a long secret of the boss"
HEADERS = {"Authorization": f"Key {KEY}"}
FLEET = {"secret": "a secret that all processes share", "worker_name": "whole"}
"""Settings for PostgreSQL. A worker of the same name takes back at once what the one before it held."""


@dataclass(frozen=True, slots=True)
class Death:
    """When the server kills itself: at the first call, or the first return, of an async function after `ARM`.

    function: such as `keyreel.store.queue:Queue.finish`.
    """

    function: str
    after: bool = False

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'} {self.function.partition(':')[2]}"

    def prepare(self) -> None:
        """Lets the signal `ARM` replace the function by one that dies."""
        module, _, path = self.function.partition(":")
        *owners, name = path.split(".")
        owner = pkgutil.resolve_name(f"{module}:{'.'.join(owners)}" if owners else module)
        original = getattr(owner, name)

        @wraps(original)
        async def dying(*args: Any, **options: Any) -> None:
            if self.after:
                await original(*args, **options)
            os.kill(os.getpid(), signal.SIGKILL)

        signal.signal(ARM, lambda *_: setattr(owner, name, dying))


ARM = signal.SIGUSR1


@dataclass(frozen=True, slots=True)
class WholeServer:
    url: str
    process: asyncio.subprocess.Process

    async def end(self) -> None:
        """Shuts the server down cleanly."""
        self.process.terminate()
        async with asyncio.timeout(60):
            assert await self.process.wait() == 0


@asynccontextmanager
async def whole_server(
    folder: Path,
    *,
    worker: bool = True,
    database: str | None = None,
    dies: Death | None = None,
    constants: Mapping[str, float] | None = None,
    **settings: Any,
) -> AsyncIterator[WholeServer]:
    """Runs a server, which accepts connections at once. Kills it at the end unless it has ended.

    database: its URL; by default a file in the folder.
    constants: new values by the names of modules' constants, such as `keyreel.server.process.SWEEP_PERIOD`.
    """
    if database and database.startswith("postgresql"):
        settings = FLEET | {"database_url": database} | settings
    arguments = {"folder": str(folder), "worker": worker, "constants": constants or {}, "settings": settings}
    if dies:
        arguments["dies"] = asdict(dies)
    command: Sequence[str] = (sys.executable, "-m", "tests.server.whole", json.dumps(arguments))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout
    try:
        url = (await process.stdout.readline()).decode().strip()
        assert url, "the server did not start"
        yield WholeServer(url, process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def small(prompt: str = "a fox", **changes: Any) -> dict[str, Any]:
    """Returns the input of a small request."""
    return SMALL | {"prompt": prompt} | changes


async def _main(
    folder: Path,
    worker: bool,
    constants: Mapping[str, float],
    settings: Mapping[str, Any],
    dies: Mapping[str, Any] | None = None,
) -> None:
    for path, value in constants.items():
        module, _, name = path.rpartition(".")
        setattr(pkgutil.resolve_name(module), name, value)
    if dies:
        Death(**dies).prepare()
    common = {"admin_key": KEY, "provenance": False, "allow_hosts": "127.0.0.1"}
    chosen = Settings(data_dir=folder, cache_dir=folder / "cache", **{**common, **settings})
    stop = asyncio.Event()
    with listen("127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with open_services(chosen, url) as services:
            await ensure_key(services.store, chosen.admin_key)
            stop_on_signal(stop)
            print(url, flush=True)
            await serve(services, listener, [Workers("fake", ("cpu",), FAKE_ENGINE_PROCESS)] if worker else [], stop)


if __name__ == "__main__":
    # By default, structlog formats tracebacks for terminals, which takes seconds.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    arguments = json.loads(sys.argv[1])
    asyncio.run(_main(Path(arguments.pop("folder")), **arguments))
