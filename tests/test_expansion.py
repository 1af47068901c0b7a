"""Prompt expansion by a real server of OpenAI's protocol, on 127.0.0.1."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from PIL import Image

from keyreel.catalogue import DEMO
from keyreel.errors import KeyreelError
from keyreel.expansion import (
    CAPTION_PROMPT,
    SYSTEM_PROMPT,
    ChatServer,
    ExpansionError,
    LocalModel,
    ask,
    clean,
    find_expander,
    seed_of,
)
from keyreel.settings import Settings

PICTURE = np.full((900, 1600, 3), (0, 0, 200), np.uint8)


@dataclass
class Chat:
    """Answers with `reply` of the request's body."""

    url: str = ""
    reply: Callable[[dict[str, Any]], Any] = lambda _order: completion("A red ball rolls over wet sand.")
    orders: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def server(self, **changes: Any) -> ChatServer:
        facts = {"url": self.url, "model": "llama", "key": None, "vision_model": None, "timeout": 10.0}
        return ChatServer(**(facts | changes))

    async def complete(self, request: web.Request) -> web.StreamResponse:
        order = await request.json()
        self.orders.append(order)
        self.headers.append(dict(request.headers))
        answer = self.reply(order)
        if asyncio.iscoroutine(answer):
            answer = await answer
        return answer if isinstance(answer, web.Response) else web.json_response(answer)


def completion(text: str | None) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


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


async def test_a_server_is_asked_in_openais_way(chat: Chat) -> None:
    assert await ask(chat.server(key="secret"), "a red ball", 3, None) == "A red ball rolls over wet sand."
    (order,) = chat.orders
    assert order["model"] == "llama"
    assert order["messages"] == [
        {"role": "system", "content": SYSTEM_PROMPT},
        {"role": "user", "content": "a red ball"},
    ]
    assert order["seed"] == seed_of(3)
    assert order["stream"] is False
    assert chat.headers[0]["Authorization"] == "Bearer secret"


async def test_without_a_key_none_is_sent(chat: Chat) -> None:
    await ask(chat.server(), "a red ball", 3, PICTURE)
    assert "Authorization" not in chat.headers[0]
    assert len(chat.orders) == 1  # nobody there sees the picture


async def test_a_vision_model_says_what_the_video_starts_from(chat: Chat) -> None:
    chat.reply = lambda order: completion("A blue wall." if order["model"] == "llava" else "The wall turns red.")
    assert await ask(chat.server(vision_model="llava"), "it changes", 3, PICTURE) == "The wall turns red."
    look, tell = chat.orders
    text, picture = look["messages"][0]["content"]
    assert text == {"type": "text", "text": CAPTION_PROMPT}
    head, _, data = picture["image_url"]["url"].partition(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as sent:
        assert sent.size == (768, 432)
        assert np.abs(np.asarray(sent).astype(int) - (0, 0, 200)).max() < 10
    assert tell["messages"][1]["content"] == "it changes\n\nThe first frame shows: A blue wall."


async def test_seeds_draw_differently(chat: Chat) -> None:
    for seed in (3, 3, 4, -1, 2**63 - 1):
        await ask(chat.server(), "a red ball", seed, None)
    first, again, *others = (order["seed"] for order in chat.orders)
    assert first == again
    assert len({first, *others}) == 4
    assert all(0 <= seed < 2**31 for seed in (first, *others))


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (web.Response(status=401, text="wrong\nkey"), r"answered 401: wrong key"),
        (web.Response(text="<html>"), "does not answer like"),
        ({"choices": []}, "does not answer like"),
        ({"error": "no such model"}, "does not answer like"),
        (completion(""), "empty answer"),
        (completion(None), "empty answer"),
        (completion("<think>It goes on and on"), "empty answer"),
    ],
)
async def test_what_is_no_answer_is_an_error(chat: Chat, reply: Any, message: str) -> None:
    chat.reply = lambda _order: reply
    with pytest.raises(ExpansionError, match=message):
        await ask(chat.server(), "a red ball", 3, None)


async def test_a_slow_server_is_not_waited_for(chat: Chat) -> None:
    over = asyncio.Event()

    async def hang() -> dict[str, Any]:
        await over.wait()
        return completion("Too late.")

    chat.reply = lambda _order: hang()
    with pytest.raises(ExpansionError, match=r"longer than 0\.1 s"):
        await ask(chat.server(timeout=0.1), "a red ball", 3, None)
    over.set()


async def test_a_server_that_is_not_there(chat: Chat) -> None:
    closed = chat.server(url="http://127.0.0.1:1/v1")
    with pytest.raises(ExpansionError, match="cannot be reached"):
        await ask(closed, "a red ball", 3, None)


@pytest.mark.parametrize(
    ("answer", "paragraph"),
    [
        ("  A ball\n\nrolls. ", "A ball rolls."),
        ('"A ball rolls."', "A ball rolls."),
        ("\u201cA ball rolls.\u201d", "A ball rolls."),
        ('"One" and "two"', '"One" and "two"'),
        ("<think>Hm,\nwhat?</think>\nA ball rolls.", "A ball rolls."),
        ("It says 'no'", "It says 'no'"),
    ],
)
def test_an_answer_becomes_a_paragraph(answer: str, paragraph: str) -> None:
    assert clean(answer) == paragraph


def test_the_operator_says_who_expands() -> None:
    local: dict[str, Any] = {"expander_model": "owner/llama"}
    remote: dict[str, Any] = {"expander_url": "http://here/v1/"}
    assert find_expander(Settings(), "ltxv-13b-0.9.7-dev") is None
    assert find_expander(Settings(), "demo") == LocalModel(str(DEMO / "expander"), None, 60.0)
    assert find_expander(Settings(**local), "demo") == LocalModel("owner/llama", None, 60.0)
    chosen = find_expander(Settings(**remote, **local, expander_key="secret", expander_vision_model="v"), "demo")
    assert chosen == ChatServer("http://here/v1", "owner/llama", "secret", "v", 60.0)
    assert "secret" not in repr(chosen)
    with pytest.raises(KeyreelError, match="KEYREEL_EXPANDER_MODEL"):
        find_expander(Settings(**remote), "demo")


def test_the_demo_models_expander_ships_with_it() -> None:
    assert (Path(DEMO) / "expander" / "model.safetensors").stat().st_size < 2 * 2**20
