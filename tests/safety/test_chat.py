"""Prompt expansion by a real server of OpenAI's API, on 127.0.0.1, and the choice of the expander."""

import asyncio
import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from PIL import Image

from keyreel.checkpoints.catalogue import DEMO
from keyreel.errors import KeyreelError
from keyreel.safety.chat import ChatServer, ask, find_expander
from keyreel.safety.expansion import CAPTION_PROMPT, SYSTEM_PROMPT, ExpansionError, LocalModel, seed_of
from keyreel.settings import Settings
from tests.safety.chat_server import Chat, chat, completion

__all__ = ["chat"]

PICTURE = np.full((900, 1600, 3), (0, 0, 200), np.uint8)


async def test_request_follows_openais_api(chat: Chat) -> None:
    assert await ask(chat.server(key="secret"), "a red ball", 3, None) == "A red ball rolls over wet sand."
    (body,) = chat.bodies
    assert body["model"] == "llama"
    assert body["messages"] == [
        {"role": "system", "content": SYSTEM_PROMPT},
        {"role": "user", "content": "a red ball"},
    ]
    assert body["seed"] == seed_of(3)
    assert body["stream"] is False
    assert chat.headers[0]["Authorization"] == "Bearer secret"


async def test_no_authorization_header_is_sent_without_a_key(chat: Chat) -> None:
    await ask(chat.server(), "a red ball", 3, PICTURE)
    assert "Authorization" not in chat.headers[0]
    assert len(chat.bodies) == 1  # without a vision model, the picture is not described


async def test_vision_model_describes_the_first_frame(chat: Chat) -> None:
    chat.reply = lambda body: completion("A blue wall." if body["model"] == "llava" else "The wall turns red.")
    assert await ask(chat.server(vision_model="llava"), "it changes", 3, PICTURE) == "The wall turns red."
    caption, expansion = chat.bodies
    text, picture = caption["messages"][0]["content"]
    assert text == {"type": "text", "text": CAPTION_PROMPT}
    head, _, data = picture["image_url"]["url"].partition(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as sent:
        assert sent.size == (768, 432)
        assert np.abs(np.asarray(sent).astype(int) - (0, 0, 200)).max() < 10
    assert expansion["messages"][1]["content"] == "it changes\n\nThe first frame shows: A blue wall."


async def test_different_seeds_give_different_31_bit_seeds(chat: Chat) -> None:
    for seed in (3, 3, 4, -1, 2**63 - 1):
        await ask(chat.server(), "a red ball", seed, None)
    first, again, *others = (body["seed"] for body in chat.bodies)
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
async def test_invalid_answers_are_errors(chat: Chat, reply: Any, message: str) -> None:
    chat.reply = lambda _body: reply
    with pytest.raises(ExpansionError, match=message):
        await ask(chat.server(), "a red ball", 3, None)


async def test_slow_server_times_out(chat: Chat) -> None:
    over = asyncio.Event()

    async def hang() -> dict[str, Any]:
        await over.wait()
        return completion("Too late.")

    chat.reply = lambda _body: hang()
    with pytest.raises(ExpansionError, match=r"longer than 0\.1 s"):
        await ask(chat.server(timeout=0.1), "a red ball", 3, None)
    over.set()


async def test_unreachable_server_is_an_error(chat: Chat) -> None:
    closed = chat.server(url="http://127.0.0.1:1/v1")
    with pytest.raises(ExpansionError, match="cannot be reached"):
        await ask(closed, "a red ball", 3, None)


def test_settings_choose_the_expander() -> None:
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


def test_demo_model_ships_with_its_expander() -> None:
    assert (Path(DEMO) / "expander" / "model.safetensors").stat().st_size < 2 * 2**20
