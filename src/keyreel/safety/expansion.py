"""Prompt expansion: turns a short prompt into a detailed description like those that video models are trained on."""

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from keyreel.errors import KeyreelError, RequestError

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
"""Tokens of an answer, at most. The video model reads only 256 of its own tokens, but some models think aloud first."""
TEMPERATURE = 0.7

_THOUGHTS = re.compile(r"<think>.*?</think>", re.DOTALL)
_QUOTES = {'"': '"', "'": "'", "\u201c": "\u201d", "`": "`"}


class ExpansionError(KeyreelError):
    """The prompt expander failed. Another attempt may succeed."""


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A causal language model, run in `keyreel.guard`. model, vision_model: a folder or hub repository."""

    model: str
    vision_model: str | None
    timeout: float


def not_configured() -> RequestError:
    """Returns the error for a request with `expand_prompt` when there is no expander."""
    return RequestError.at(
        ("expand_prompt",),
        "Prompt expansion is not configured here. Set expand_prompt to false, or have the operator set "
        "KEYREEL_EXPANDER_URL or KEYREEL_EXPANDER_MODEL.",
        "feature_not_supported",
    )


def messages(prompt: str, caption: str | None) -> list[dict[str, Any]]:
    """Returns the conversation that asks for an expanded prompt. caption: describes the first frame."""
    start = f"\n\nThe first frame shows: {caption}" if caption else ""
    return [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": prompt + start}]


def clean(answer: str) -> str:
    """Removes thoughts, line breaks and surrounding quotation marks. Raises ExpansionError if nothing is left."""
    text = " ".join(_THOUGHTS.sub("", answer).split())
    if len(text) > 1 and (end := _QUOTES.get(text[0])) == text[-1] and text.count(end) == 1 + (end == text[0]):
        text = text[1:-1].strip()
    if not text or text.startswith("<think>"):
        raise ExpansionError("The prompt expander gave an empty answer.")
    return text


def seed_of(seed: int) -> int:
    """Returns the expander's seed (31 bits), derived from the request's and independent of the video's noise."""
    return int.from_bytes(hashlib.sha256(f"{seed}/expand".encode()).digest()[:4], "big") >> 1


def too_slow(timeout: float) -> ExpansionError:
    """Returns the error for an expansion that took longer than `timeout` seconds."""
    return ExpansionError(
        f"The prompt expander took longer than {timeout:g} s (KEYREEL_EXPANDER_TIMEOUT). "
        "Try again, or set expand_prompt to false."
    )
