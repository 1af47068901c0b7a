"""Expands prompts with a server that offers OpenAI's chat completions API. Also selects the configured expander."""

import asyncio
import base64
import io
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from numpy.typing import NDArray
from PIL import Image

from keyreel.checkpoints.catalogue import DEMO
from keyreel.errors import KeyreelError
from keyreel.safety.expansion import (
    CAPTION_PROMPT,
    MAX_TOKENS,
    TEMPERATURE,
    ExpansionError,
    LocalModel,
    clean,
    messages,
    seed_of,
    too_slow,
)
from keyreel.settings import Settings

DEMO_MODEL = "demo"
CAPTION_EDGE = 768
"""Pixels of the longer edge of a picture sent to a vision model, at most."""


@dataclass(frozen=True, slots=True)
class ChatServer:
    """A server that answers at `url`/chat/completions. timeout: seconds for one expansion."""

    url: str
    model: str
    key: str | None = field(repr=False)
    vision_model: str | None
    timeout: float


def find_expander(settings: Settings, video_model: str) -> ChatServer | LocalModel | None:
    """Returns the configured expander. Without one, the demo model uses its own. Raises KeyreelError."""
    model, vision, timeout = settings.expander_model, settings.expander_vision_model, settings.expander_timeout
    if settings.expander_url:
        if not model:
            raise KeyreelError("KEYREEL_EXPANDER_URL also needs KEYREEL_EXPANDER_MODEL, the name of a model there.")
        return ChatServer(settings.expander_url, model, settings.expander_key, vision, timeout)
    if model:
        return LocalModel(model, vision, timeout)
    return LocalModel(str(DEMO / "expander"), None, timeout) if video_model == DEMO_MODEL else None


async def ask(server: ChatServer, prompt: str, seed: int, picture: NDArray[Any] | None) -> str:
    """Returns the expanded prompt. picture: the first frame, (height, width, 3). Raises ExpansionError."""
    headers = {"Authorization": f"Bearer {server.key}"} if server.key else {}
    try:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(asyncio.timeout(server.timeout))
            session = await stack.enter_async_context(aiohttp.ClientSession(headers=headers))
            caption = None
            if picture is not None and server.vision_model:
                question = await asyncio.to_thread(_caption_messages, picture)
                caption = await _complete(session, server, server.vision_model, question, seed)
            return await _complete(session, server, server.model, messages(prompt, caption), seed)
    except TimeoutError:
        raise too_slow(server.timeout) from None
    except aiohttp.ClientError as error:
        raise ExpansionError(f"The prompt expander at {server.url} cannot be reached: {error}") from None


async def _complete(
    session: aiohttp.ClientSession, server: ChatServer, model: str, conversation: list[dict[str, Any]], seed: int
) -> str:
    body = {
        "model": model,
        "messages": conversation,
        "seed": seed_of(seed),
        "temperature": TEMPERATURE,
        "max_tokens": MAX_TOKENS,
        "stream": False,
    }
    async with session.post(f"{server.url}/chat/completions", json=body) as response:
        if response.status != 200:
            reason = " ".join((await response.text(errors="replace")).split())[:200]
            raise ExpansionError(f"The prompt expander at {server.url} answered {response.status}: {reason}")
        try:
            return clean(_content(await response.json(content_type=None)))
        except (ValueError, LookupError, TypeError):
            raise ExpansionError(
                f"{server.url} does not answer like an OpenAI-compatible server. Does KEYREEL_EXPANDER_URL end in /v1?"
            ) from None


def _content(answer: Mapping[str, Any]) -> str:
    return str(answer["choices"][0]["message"]["content"] or "")


def _caption_messages(picture: NDArray[Any]) -> list[dict[str, Any]]:
    """Returns a conversation that asks what a picture shows. The picture is sent as a JPEG."""
    image = Image.fromarray(picture)
    image.thumbnail((CAPTION_EDGE, CAPTION_EDGE))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=90)
    url = f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
    content = [{"type": "text", "text": CAPTION_PROMPT}, {"type": "image_url", "image_url": {"url": url}}]
    return [{"role": "user", "content": content}]
