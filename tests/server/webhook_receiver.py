"""An HTTP server that receives webhooks, and the check of their signatures that fal documents."""

import asyncio
import base64
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from keyreel.fal.outcomes import JsonObject

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Call:
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """An HTTP server that queues its calls. `answer` makes its responses; it may wait or fail."""

    answer: Answer
    url: str = ""
    calls: asyncio.Queue[Call] = field(default_factory=asyncio.Queue)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.calls.put_nowait(Call(dict(request.headers), await request.read()))
        return await self.answer(request)

    async def next(self) -> Call:
        """Waits for the next call."""
        async with asyncio.timeout(5):
            return await self.calls.get()


@asynccontextmanager
async def receiver(*statuses: int, answer: Answer | None = None, **headers: str) -> AsyncIterator[Receiver]:
    """Runs a receiver. It answers with one status after the other, and then repeats the last one."""
    waiting = list(statuses or (200,))

    async def by_status(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=waiting.pop(0) if len(waiting) > 1 else waiting[0], headers=headers)

    server = Receiver(answer or by_status)
    app = web.Application()
    app.router.add_post("/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield server
    finally:
        await runner.cleanup()


def verify(call: Call, x: str, tolerance: float = 300) -> bool:
    """Verifies a call like fal's Python sample: https://docs.fal.ai/model-endpoints/webhooks.

    Like the sample, it does not add missing padding to `x`.
    """
    headers = call.headers
    timestamp = headers["X-Fal-Webhook-Timestamp"]
    if abs(time.time() - int(timestamp)) > tolerance:
        return False
    message = "\n".join(
        [
            headers["X-Fal-Webhook-Request-Id"],
            headers["X-Fal-Webhook-User-Id"],
            timestamp,
            hashlib.sha256(call.body).hexdigest(),
        ]
    )
    signature = bytes.fromhex(headers["X-Fal-Webhook-Signature"])
    try:
        Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(x)).verify(signature, message.encode("utf-8"))
    except (InvalidSignature, ValueError):
        return False
    return True


def verify_by_jwks(call: Call, jwks: JsonObject) -> bool:
    """Tells whether one of the keys verifies the call."""
    return any(verify(call, key["x"]) for key in jwks["keys"])
