"""A small server of OpenAI's chat completions API on 127.0.0.1, with fixed answers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from keyreel.safety.chat import ChatServer


def completion(text: str | None) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


@dataclass
class Chat:
    """Answers each request with `reply`, called with the body. bodies, headers: those of the requests so far."""

    url: str = ""
    reply: Callable[[dict[str, Any]], Any] = lambda _body: completion("A red ball rolls over wet sand.")
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def server(self, **changes: Any) -> ChatServer:
        fields = {"url": self.url, "model": "llama", "key": None, "vision_model": None, "timeout": 10.0}
        return ChatServer(**(fields | changes))

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        answer = self.reply(body)
        if asyncio.iscoroutine(answer):
            answer = await answer
        return answer if isinstance(answer, web.Response) else web.json_response(answer)


@pytest.fixture
async def chat() -> AsyncIterator[Chat]:
    chat = Chat()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat.complete)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    chat.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield chat
    await runner.cleanup()
