"""Parses the body and the headers of a submit."""

import asyncio
import hashlib
import json
import math
from codecs import BOM_UTF8
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from fastapi import HTTPException
from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.requests import Request

from keyreel import traces
from keyreel.errors import RequestError
from keyreel.fal.outcomes import JsonObject
from keyreel.server.bodies import LARGE, Incoming, lift_limit
from keyreel.server.errors import PlatformError
from keyreel.server.lifecycle import Lifecycle, parse_lifecycle
from keyreel.store.records import Idempotency, Priority

MIN_START_TIMEOUT = 0.1
MAX_VALUES = 100_000
"""Commas and opening brackets in a body, at most."""
QUEUE_PARAMETERS = frozenset({"fal_webhook", "fal_max_queue_length", "fal_jwt_token", "logs"})
"""Query parameters that are not part of the input."""


@dataclass(frozen=True, slots=True)
class Body:
    """The input as sent, not validated yet. `digest` is the SHA-256 of its bytes, in a GET of its query."""

    input: JsonObject
    digest: str
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Options:
    """A client's options for the queue. Headers that concern only fal's own fleet are ignored."""

    priority: Priority
    webhook_url: str | None
    max_queue_length: int | None
    start_timeout: float | None
    retry: bool
    store: bool
    """Whether input and outcome are kept for the operator's full retention time."""
    video: Lifecycle
    idempotency_key: str | None
    traceparent: str | None
    """The client's span (W3C Trace Context)."""

    @classmethod
    def of(cls, request: Request) -> "Options":
        """Parses headers and query. Answers 400 when a value is invalid."""
        headers, query = request.headers, request.query_params
        return cls(
            priority=Priority.LOW if headers.get("x-fal-queue-priority", "").lower() == "low" else Priority.NORMAL,
            webhook_url=_webhook_url(query.get("fal_webhook")),
            max_queue_length=_max_queue_length(query.get("fal_max_queue_length")),
            start_timeout=_start_timeout(headers),
            retry=headers.get("x-fal-no-retry", "").lower() not in ("1", "true", "yes"),
            store=headers.get("x-fal-store-io") != "0",
            video=parse_lifecycle(headers.get("x-fal-object-lifecycle-preference")),
            idempotency_key=headers.get("idempotency-key"),
            traceparent=headers.get(traces.HEADER),
        )

    def idempotency(self, endpoint_id: str, digest: str) -> Idempotency | None:
        """Returns the client's key with a hash of what it submits, or None when the client sent no key."""
        if self.idempotency_key is None:
            return None
        parts = repr((endpoint_id, digest, self.webhook_url, int(self.priority)))
        return Idempotency(self.idempotency_key, hashlib.sha256(parts.encode("utf-8", "replace")).hexdigest())


async def read_body(request: Request, max_bytes: int, incoming: Incoming) -> Body:
    """Returns the body, a JSON object; for a GET, the query. Raises RequestError when the body is anything else."""
    if request.method == "GET":
        query = request.query_params
        fields = {name: query[name] for name in query if name not in QUEUE_PARAMETERS}
        text = json.dumps(fields, sort_keys=True).encode()
        return Body(fields, hashlib.sha256(text).hexdigest(), len(text))
    if (encoding := request.headers.get("content-encoding", "identity").lower()) != "identity":
        message = f"The body is encoded with {encoding}, which this server does not decode. Send it as it is."
        raise HTTPException(415, message, {"Accept-Encoding": "identity"})
    raw, digest = bytearray(), hashlib.sha256()
    async for chunk in _limited(request, max_bytes):
        incoming.add(len(chunk))
        raw += chunk
        digest.update(chunk)
    await incoming.turn()
    value = await _parsed(raw)
    if not isinstance(value, dict):
        raise RequestError.at((), "Input should be a JSON object.", "model_attributes_type")
    return Body(value, digest.hexdigest(), incoming.size)


async def _parsed(raw: bytearray) -> Any:
    if not raw or raw.isspace():
        return {}
    return await asyncio.to_thread(parse_json, raw) if len(raw) >= LARGE else parse_json(raw)


def parse_json(raw: bytes | bytearray) -> Any:
    """Raises RequestError for invalid JSON; also for Infinity, NaN and numbers too large for a float."""
    try:
        value = from_json(raw.removeprefix(BOM_UTF8), allow_inf_nan=False)
    except ValueError as error:
        raise RequestError.at((), "JSON decode error", "json_invalid", error=str(error)) from None
    if not _is_finite(value):
        raise RequestError.at((), "JSON decode error", "json_invalid", error="number out of range")
    return value


def _is_finite(value: Any) -> bool:
    match value:
        case float():
            return math.isfinite(value)
        case dict():
            return all(map(_is_finite, value.values()))
        case list():
            return all(map(_is_finite, value))
    return True


async def _limited(request: Request, max_bytes: int) -> AsyncIterator[bytes]:
    """Yields the body. Also limits its values: a million empty objects take a hundred times their bytes in memory."""
    lift_limit(request)
    received = values = 0
    async for chunk in request.stream():
        received += len(chunk)
        values += sum(map(chunk.count, b",[{"))
        if received > max_bytes:
            raise HTTPException(413, f"The body is larger than {max_bytes} bytes. Upload files and send their URLs.")
        if values > MAX_VALUES:
            raise HTTPException(413, f"The body has more than {MAX_VALUES} values.")
        yield chunk


def _webhook_url(url: str | None) -> str | None:
    if not url:
        return None
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        valid = False
    if not valid:
        raise PlatformError("fal_webhook must be an http or https URL.")
    return url


def _max_queue_length(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise PlatformError("fal_max_queue_length must be a whole number.")
    return int(text)


def _start_timeout(headers: Headers) -> float | None:
    text = headers.get("x-fal-request-start-timeout") or headers.get("x-fal-request-timeout")
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not MIN_START_TIMEOUT < seconds < math.inf:
        raise PlatformError(f"The start timeout must be a number of seconds greater than {MIN_START_TIMEOUT}.")
    return seconds
