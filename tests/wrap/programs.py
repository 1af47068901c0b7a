"""Programs behind `keyreel wrap`, and a server that echoes their calls."""

import asyncio
import os
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

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


async def run_wrapped(server: str, *command: str, **environment: str) -> tuple[int, str, str]:
    """Runs a command behind `keyreel wrap`. Returns its exit status, its output and its errors."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "keyreel", "wrap", "--server", server, "--", *command),
        env=os.environ | {"FAL_KEY": "id:secret"} | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode(), err.decode()
