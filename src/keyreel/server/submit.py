"""Turns a client's input into a row in the queue."""

import asyncio
import json
import mimetypes
import secrets
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

from fastapi import HTTPException
from opentelemetry.trace import SpanKind

from keyreel import traces
from keyreel.errors import KeyreelError, RequestError
from keyreel.fal.endpoints import Endpoint
from keyreel.fal.outcomes import JsonObject
from keyreel.fal.schema import SOURCE_FIELDS
from keyreel.files.links import Links
from keyreel.inputs.fetch import parse_data_uri
from keyreel.server.dependencies import Services
from keyreel.server.options import Body, Options
from keyreel.server.uploads import discard
from keyreel.settings import Settings
from keyreel.store.records import File, Key, NewFile, NewRequest, Submitted

SHORT_RETENTION = 3600.0
"""Seconds for which an outcome can be read when the client wants nothing kept. fal has the same value."""
_LONGEST_LINK = 4096
"""Characters that a link to a file of ours may have. Longer texts are not searched for one."""
MAX_INPUT = 1024 * 1024
"""Bytes of an input without its data URIs, as it lies in the database."""
_SINGLE_IMAGE = "image_url"
"""The field of the image-to-video endpoints, which take one picture."""
_SINGLE_CLIP = "video"
"""The field of the extend endpoints, which take one clip."""


async def submit_request(services: Services, key: Key, endpoint: Endpoint, body: Body, options: Options) -> Submitted:
    """Queues a request. Raises DiskLowError, QueueFullError, KeyLimitError, StorageLimitError or IdempotencyError."""
    with traces.span("submit", options.traceparent, SpanKind.SERVER, endpoint=endpoint.id) as span:
        submitted = await _submit(services, key, endpoint, body, options)
        span.set_attribute("keyreel.request_id", submitted.id)
        return submitted


async def _submit(services: Services, key: Key, endpoint: Endpoint, body: Body, options: Options) -> Submitted:
    services.disk.require(sum(len(item[field]) for item, field in _data_uris(body.input)))
    stored: list[File] = []
    try:
        await _store_data_uris(services, key, body.input, stored)
        await _check_size(body)
        submitted = await services.store.queue.submit(_new_request(services, key, endpoint, body, options))
    except (KeyreelError, HTTPException):  # after an error of the database, the request may be queued all the same
        await _delete(services, stored)
        raise
    if submitted.replayed:
        await _delete(services, stored)
    return submitted


async def _check_size(body: Body) -> None:
    """Answers 413 if the input would make a row large, now that its data URIs are files."""
    if body.size > MAX_INPUT and await asyncio.to_thread(lambda: len(json.dumps(body.input))) > MAX_INPUT:
        raise HTTPException(
            413,
            f"The input, without pictures and clips in valid data URIs, is larger than {MAX_INPUT} bytes. "
            "Upload files and send their URLs.",
        )


def _new_request(services: Services, key: Key, endpoint: Endpoint, body: Body, options: Options) -> NewRequest:
    return NewRequest(
        endpoint=endpoint.id,
        pool=services.endpoints.pools[endpoint.id],
        key_id=key.id,
        input=body.input,
        seed=_seed(endpoint, body.input),
        priority=options.priority,
        webhook_url=services.webhook_urls.seal(options.webhook_url) if options.webhook_url else None,
        idempotency=options.idempotency(endpoint.id, body.digest),
        start_timeout=options.start_timeout,
        max_queue_length=options.max_queue_length,
        retry=options.retry,
        retention=_retention(services.settings, options),
        output_lifetime=_shorter(options.video.lifetime, services.settings.output_lifetime),
        output_acl=options.video.acl,
        traceparent=traces.traceparent(),
        files=tuple(_named_files(services.links, body.input)),
    )


def _seed(endpoint: Endpoint, data: JsonObject) -> int:
    """Returns the request's seed, or draws one here, so that every attempt makes the same video."""
    try:
        seed = endpoint.read(data).seed
    except RequestError:
        # The worker finds the same error and reports it to the client and its webhook.
        seed = None
    return secrets.randbelow(2**32) if seed is None else seed


def _retention(settings: Settings, options: Options) -> float:
    return settings.retention if options.store else min(SHORT_RETENTION, settings.retention)


def _shorter(requested: float | None, allowed: float | None) -> float | None:
    """Returns the shorter lifetime. None means no limit."""
    return min((lifetime for lifetime in (requested, allowed) if lifetime is not None), default=None)


async def _store_data_uris(services: Services, key: Key, data: JsonObject, stored: list[File]) -> None:
    """Stores each data URI as a file and puts the file's URL in its place, so that rows stay small.

    Adds the files to `stored`.
    """
    for item, field in _data_uris(data):
        try:
            content_type, pieces = await asyncio.to_thread(
                parse_data_uri, item[field], services.settings.max_body_bytes, ()
            )
        except RequestError:
            continue  # the worker reports the error
        file = await _store_file(services, key, content_type or "application/octet-stream", pieces)
        item[field] = services.links.file_url(file)
        stored.append(file)


async def _delete(services: Services, files: list[File]) -> None:
    """Deletes the files of a request that was not queued."""
    for file in files:
        await discard(services, file)


def _data_uris(data: JsonObject) -> Iterator[tuple[JsonObject, str]]:
    """Yields each object with a data URI, and its field."""
    return ((item, field) for item, field in _sources(data) if _is_data_uri(item[field]))


def _named_files(links: Links, data: JsonObject) -> set[str]:
    """Returns the ids of the files here that the input names, its data URIs among them, which are stored by now."""
    sources = (str(item[field]) for item, field in _sources(data))
    refs = (links.file_of(source) for source in sources if len(source) <= _LONGEST_LINK)
    return {ref.id for ref in refs if ref}


def _sources(data: JsonObject) -> Iterator[tuple[JsonObject, str]]:
    """Yields each object with a source, and its field. The input is not validated yet, so any type may occur."""
    if _SINGLE_IMAGE in data:
        yield data, _SINGLE_IMAGE
    lists = [(data.get(name), field) for name, field in SOURCE_FIELDS.items()]
    for items, field in ([data.get(_SINGLE_CLIP)], SOURCE_FIELDS["videos"]), *lists:
        for item in items if isinstance(items, list) else ():
            if isinstance(item, dict) and field in item:
                yield item, field


def _is_data_uri(value: object) -> bool:
    return isinstance(value, str) and value[:5].lower() == "data:"


async def _each(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def _store_file(services: Services, key: Key, content_type: str, pieces: list[bytes]) -> File:
    name = f"input{mimetypes.guess_extension(content_type) or ''}"
    new = NewFile(
        key_id=key.id,
        object=f"in/{uuid4()}/{name}",
        name=name,
        content_type=content_type,
        size=sum(map(len, pieces)),
        lifetime=services.settings.input_lifetime,
    )
    file = await services.store.files.add(new, upload=True)
    await services.objects.put(new.object, _each(pieces), content_type)
    return file
