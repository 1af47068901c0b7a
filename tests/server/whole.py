"""The complete server in another process, with a fake engine process. Run as `python -m tests.server.whole JSON`."""

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from keyreel.server.process import Workers, listen, serve, stop_on_signal
from keyreel.server.startup import ensure_key, open_services
from keyreel.settings import Settings
from tests.worker.conftest import FAKE_ENGINE_PROCESS, SMALL

KEY = "boss:a long secret of the boss"
HEADERS = {"Authorization": f"Key {KEY}"}


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
async def whole_server(folder: Path, *, worker: bool = True, **settings: Any) -> AsyncIterator[WholeServer]:
    """Runs a server, which accepts connections at once. Kills it at the end unless it has ended."""
    arguments = json.dumps({"folder": str(folder), "worker": worker, "settings": settings})
    command: Sequence[str] = (sys.executable, "-m", "tests.server.whole", arguments)
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


async def _main(folder: Path, worker: bool, settings: dict[str, Any]) -> None:
    common = {"admin_key": KEY, "provenance": False, "allow_hosts": "127.0.0.1"}
    chosen = Settings(data_dir=folder, cache_dir=folder / "cache", **{**common, **settings})
    stop = asyncio.Event()
    with listen("127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with open_services(chosen, url) as services:
            await ensure_key(services.store, chosen.admin_key)
            stop_on_signal(stop)
            print(url, flush=True)
            await serve(services, listener, Workers("fake", ("cpu",), FAKE_ENGINE_PROCESS) if worker else None, stop)


if __name__ == "__main__":
    # By default, structlog formats tracebacks for terminals, which takes seconds.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    arguments = json.loads(sys.argv[1])
    asyncio.run(_main(Path(arguments["folder"]), arguments["worker"], arguments["settings"]))
