"""Prompt expanders: a short prompt becomes the kind of description that a video model was trained on."""

import asyncio
import base64
import hashlib
import io
import re
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from numpy.typing import NDArray
from PIL import Image

from keyreel.catalogue import DEMO
from keyreel.errors import KeyreelError, RequestError
from keyreel.settings import Settings

SYSTEM_PROMPT = """\
You turn a short idea into the description of one video shot of a few seconds, for a text-to-video model.
Write one paragraph of at most 150 words, in English and in the present tense, of nothing but what can be seen.
Begin with the main action in one sentence. Then tell in the order of time what moves and how; what people, animals \
and things look like; the place and the background; where the camera is and how it moves; the light and the colours. \
End with a change or sudden event only if the idea has one.
Keep every subject, number, colour, place and style that the idea names, and add nothing that contradicts it. If it is \
said what the first frame shows, start from exactly that.
No title, no list, no quotation marks, no sounds, no words about the task: only the paragraph."""
CAPTION_PROMPT = "Describe this picture in two or three sentences: who and what is in it, the place, light and colours."
MAX_TOKENS = 512
"""Of an answer. The video model reads 256 of its own; some models think aloud first."""
TEMPERATURE = 0.7
CAPTION_EDGE = 768
"""Pixels of a picture's longer edge, as a vision model gets it."""
DEMO_MODEL = "demo"

_THOUGHTS = re.compile(r"<think>.*?</think>", re.DOTALL)
_QUOTES = {'"': '"', "'": "'", "\u201c": "\u201d", "`": "`"}


class ExpansionError(KeyreelError):
    """The expander did not do its work. Another attempt may succeed."""


@dataclass(frozen=True, slots=True)
class ChatServer:
    """A server that speaks OpenAI's chat completions, at `url`/chat/completions. timeout: seconds, for all of it."""

    url: str
    model: str
    key: str | None = field(repr=False)
    vision_model: str | None
    timeout: float


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A causal language model, a folder or hub repository, and perhaps one that sees. Runs in `keyreel.guard`."""

    model: str
    vision_model: str | None
    timeout: float


def find_expander(settings: Settings, video_model: str) -> ChatServer | LocalModel | None:
    """The one that is configured; the demo model brings one of its own. Raises KeyreelError."""
    model, vision, timeout = settings.expander_model, settings.expander_vision_model, settings.expander_timeout
    if settings.expander_url:
        if not model:
            raise KeyreelError("KEYREEL_EXPANDER_URL needs KEYREEL_EXPANDER_MODEL: which of the server's models?")
        return ChatServer(settings.expander_url, model, settings.expander_key, vision, timeout)
    if model:
        return LocalModel(model, vision, timeout)
    return LocalModel(str(DEMO / "expander"), None, timeout) if video_model == DEMO_MODEL else None


def not_configured() -> RequestError:
    return RequestError.at(
        ("expand_prompt",),
        "Prompt expansion is not configured here: the operator must set KEYREEL_EXPANDER_URL or "
        "KEYREEL_EXPANDER_MODEL. Set expand_prompt to false.",
        "feature_not_supported",
    )


async def ask(server: ChatServer, prompt: str, seed: int, picture: NDArray[Any] | None) -> str:
    """The expanded prompt. picture: (height, width, 3), what the video starts from. Raises ExpansionError."""
    headers = {"Authorization": f"Bearer {server.key}"} if server.key else {}
    try:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(asyncio.timeout(server.timeout))
            session = await stack.enter_async_context(aiohttp.ClientSession(headers=headers))
            caption = None
            if picture is not None and server.vision_model:
                look = await asyncio.to_thread(_look_at, picture)
                caption = await _complete(session, server, server.vision_model, look, seed)
            return await _complete(session, server, server.model, messages(prompt, caption), seed)
    except TimeoutError:
        raise too_slow(server.timeout) from None
    except aiohttp.ClientError as error:
        raise ExpansionError(f"The prompt expander at {server.url} cannot be reached: {error}") from None


def messages(prompt: str, caption: str | None) -> list[dict[str, Any]]:
    """The conversation that ends in an expanded prompt."""
    start = f"\n\nThe first frame shows: {caption}" if caption else ""
    return [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": prompt + start}]


def clean(answer: str) -> str:
    """The paragraph alone: no thoughts, no line breaks, no quotation marks around it. Raises ExpansionError."""
    text = " ".join(_THOUGHTS.sub("", answer).split())
    if len(text) > 1 and (end := _QUOTES.get(text[0])) == text[-1] and text.count(end) == 1 + (end == text[0]):
        text = text[1:-1].strip()
    if not text or text.startswith("<think>"):
        raise ExpansionError("The prompt expander gave an empty answer.")
    return text


def seed_of(seed: int) -> int:
    """The expander's seed, 31 bits: what it draws has nothing to do with the video's noise."""
    return int.from_bytes(hashlib.sha256(f"{seed}/expand".encode()).digest()[:4], "big") >> 1


def too_slow(timeout: float) -> ExpansionError:
    return ExpansionError(
        f"The prompt expander took longer than {timeout:g} s (KEYREEL_EXPANDER_TIMEOUT). "
        "Try again, or set expand_prompt to false."
    )


async def _complete(
    session: aiohttp.ClientSession, server: ChatServer, model: str, conversation: list[dict[str, Any]], seed: int
) -> str:
    order = {
        "model": model,
        "messages": conversation,
        "seed": seed_of(seed),
        "temperature": TEMPERATURE,
        "max_tokens": MAX_TOKENS,
        "stream": False,
    }
    async with session.post(f"{server.url}/chat/completions", json=order) as response:
        if response.status != 200:
            said = " ".join((await response.text(errors="replace")).split())[:200]
            raise ExpansionError(f"The prompt expander at {server.url} answered {response.status}: {said}")
        try:
            return clean(_content(await response.json(content_type=None)))
        except (ValueError, LookupError, TypeError):
            raise ExpansionError(
                f"{server.url} does not answer like an OpenAI-compatible server. Does KEYREEL_EXPANDER_URL end in /v1?"
            ) from None


def _content(answer: Mapping[str, Any]) -> str:
    return str(answer["choices"][0]["message"]["content"] or "")


def _look_at(picture: NDArray[Any]) -> list[dict[str, Any]]:
    """Asks what a picture shows; the picture goes along as a JPEG."""
    image = Image.fromarray(picture)
    image.thumbnail((CAPTION_EDGE, CAPTION_EDGE))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=90)
    url = f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
    content = [{"type": "text", "text": CAPTION_PROMPT}, {"type": "image_url", "image_url": {"url": url}}]
    return [{"role": "user", "content": content}]
