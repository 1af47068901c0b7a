"""Programs behind `keyreel wrap`, and a server that echoes their calls."""

import asyncio
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

TIMEOUT = 240.0
"""Seconds that a program may take. Some build their pages first."""
HTTPX_GET = "import httpx, sys; print(httpx.get(sys.argv[1]).text)"


@asynccontextmanager
async def echo_server(tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Runs a server that answers each call with its host, path and credentials. Yields its address."""

    async def echo(request: web.Request) -> web.Response:
        if request.path == "/storage/auth/token":
            answer = {"token": "t", "token_type": "Bearer", "base_url": "-", "expires_at": "2100-01-01T00:00:00+00:00"}
            return web.json_response(answer)
        call = {"host": request.host, "path": request.path_qs, "key": request.headers.get("Authorization")}
        return web.json_response(call | {"access_url": f"{request.host}{request.path}"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    yield f"127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@dataclass(frozen=True, slots=True)
class Recorder:
    """What a program connected to: `proxied` through the proxy that its environment names, `file` by itself."""

    environment: dict[str, str]
    proxied: list[str]
    file: Path

    @property
    def addresses(self) -> set[str]:
        return set(self.file.read_text().split())


@asynccontextmanager
async def recorder(folder: Path) -> AsyncIterator[Recorder]:
    """Records all connections of programs that run in the yielded environment, and lets none through the proxy."""
    proxied: list[str] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        proxied.append((await reader.readline()).decode().strip())
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    hooks, file = Path(__file__).parent / "recorder", folder / "addresses"
    async with await asyncio.start_server(refuse, "127.0.0.1") as listener:
        proxy = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        variables = {
            "HTTPS_PROXY": proxy,
            "RECORD": str(file),
            "PYTHONPATH": os.pathsep.join([str(hooks), os.environ.get("PYTHONPATH", "")]),
            "NODE_OPTIONS": f"--require {hooks / 'record.cjs'}",
        }
        yield Recorder(variables, proxied, file)


async def run_wrapped(server: str, *command: str, **environment: str) -> tuple[int, str, str]:
    """Runs a command behind `keyreel wrap`. Returns its exit status, its output and its errors.

    A command that takes too long is killed, with all that it started.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "keyreel", "wrap", "--check", "--server", server, "--", *command),
        env=os.environ | {"FAL_KEY": "id:secret"} | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    end = asyncio.get_running_loop().call_later(TIMEOUT, os.killpg, process.pid, signal.SIGKILL)
    out, err = await process.communicate()
    end.cancel()
    return process.returncode or 0, out.decode(), err.decode()
