"""Limits what of the bodies of calls is in memory at a time, and the size of a body that no route has asked for."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from fastapi import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MIB = 1024 * 1024
DEFAULT_LIMIT = 2 * MIB
"""Bytes of a body, unless its route reads it piece by piece. The longest is the list of ten thousand parts."""
LARGE = MIB
"""Bytes from which a body is parsed in a thread, when it is its turn."""
TURNS = 2
"""Large bodies that are parsed and stored at a time. Each is in memory up to three times."""
RETRY_AFTER = "5"
"""Seconds after which a client may send a refused body again."""
_LIMIT = "body_limit"


@dataclass(slots=True)
class Bodies:
    """What this process has in memory of the bodies that arrive. in_all, per_key: bytes."""

    in_all: int
    per_key: int
    _total: int = 0
    _by_key: Counter[str] = field(default_factory=Counter)
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(TURNS))

    @asynccontextmanager
    async def receive(self, key_id: str) -> AsyncIterator["Incoming"]:
        """Counts a body as in memory during the block."""
        async with AsyncExitStack() as stack:
            incoming = Incoming(self, key_id, stack)
            try:
                yield incoming
            finally:
                self._count(key_id, -incoming.size)

    def add(self, key_id: str, size: int) -> None:
        """Answers 429 or 503 when this is too much for the key or for the process."""
        if self._by_key[key_id] + size > self.per_key:
            message = f"Your key is sending more than {self.per_key} bytes at a time. Send one after the other."
            raise HTTPException(429, message, {"Retry-After": RETRY_AFTER})
        if self._total + size > self.in_all:
            raise HTTPException(503, "Too many large bodies arrive at a time. Try again.", {"Retry-After": RETRY_AFTER})
        self._count(key_id, size)

    def _count(self, key_id: str, size: int) -> None:
        self._total += size
        self._by_key[key_id] += size
        if not self._by_key[key_id]:
            del self._by_key[key_id]


@dataclass(slots=True)
class Incoming:
    """One body. `size` is what of it is in memory, in bytes."""

    bodies: Bodies
    key_id: str
    stack: AsyncExitStack
    size: int = 0

    def add(self, size: int) -> None:
        self.bodies.add(self.key_id, size)
        self.size += size

    async def turn(self) -> None:
        """If the body is large, waits until few others are parsed and stored. The turn ends with the body."""
        if self.size >= LARGE:
            await self.stack.enter_async_context(self.bodies.turns)


def lift_limit(request: Request) -> None:
    """Lets the body be of any size, because the route reads it piece by piece and sets its own limit."""
    setattr(request.state, _LIMIT, None)


@dataclass(frozen=True, slots=True)
class BodyLimit:
    """ASGI middleware: FastAPI reads the whole body of a route with a model before it looks for the caller's key."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state, received = scope.setdefault("state", {}), 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            limit = state.get(_LIMIT, DEFAULT_LIMIT)
            if limit is not None and received > limit:
                raise HTTPException(413, f"The body is larger than {limit} bytes.")
            return message

        await self.app(scope, limited, send)
