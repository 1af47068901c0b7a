"""Object storage: a local folder or an S3 bucket. Each object is written completely or not at all."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import obstore
import structlog
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from keyreel.errors import KeyreelError
from keyreel.store import Store

if TYPE_CHECKING:
    from obstore import Attributes, GetOptions, ObjectMeta  # only in obstore's stubs
    from obstore.store import RetryConfig

CHUNK = 1024 * 1024
_PART = 5 * CHUNK
"""The smallest part that S3 accepts."""
_PARTS_IN_FLIGHT = 4
"""Parts of one upload that are in memory at once."""
IN_MEMORY = _PART * (_PARTS_IN_FLIGHT + 1)
"""Bytes of an object that are in memory while it is written, at most."""
_RETRIES: "RetryConfig" = {"max_retries": 5, "retry_timeout": timedelta(seconds=15)}
"""A request to a bucket that is away fails after this time. Without a limit, one read hung for 91 seconds."""
_DAY = 86_400.0
_MAX_FAILED = 100
"""Files that one sweep fails to delete before it ends."""

_log = structlog.get_logger(__name__)


class ObjectChangedError(KeyreelError):
    """The object has been replaced by another one."""


class ObjectStoreError(KeyreelError, OSError):
    """The folder or the bucket cannot be read or written: the disk is full, access is denied, or it is unreachable."""


@dataclass(frozen=True, slots=True)
class Stat:
    """`size` is in bytes. `etag` is quoted, and changes with the content."""

    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Objects:
    """Objects by path. Paths are relative and have slashes. A path with `..` raises ValueError."""

    store: ObjectStore

    @property
    def folder(self) -> Path | None:
        """The local folder, or None for a bucket."""
        prefix = self.store.prefix if isinstance(self.store, LocalStore) else None
        return Path(prefix) if prefix else None

    async def put(self, path: str, source: Path | bytes | AsyncIterator[bytes], content_type: str | None = None) -> int:
        """Writes an object and returns its size in bytes.

        Readers see either the old object or the new one. An exception in `source` leaves the old one.
        content_type: what a bucket says to those who read the object there.
        """
        match source:
            case bytes():
                chunks = _single(source)
            case Path():
                chunks = _read(source)
            case _:
                chunks = source
        return await self._put(path, chunks, content_type)

    async def compose(self, path: str, parts: Sequence[str], content_type: str | None = None) -> int:
        """Joins the objects `parts` into one object and returns its size in bytes."""
        return await self._put(path, self._concatenate(parts), content_type)

    async def download(self, path: str, to: Path) -> None:
        """Copies an object to the file `to`. Raises FileNotFoundError. An exception leaves no file behind."""
        try:
            with to.open("wb") as file:
                async for chunk in self.stream(path):
                    await asyncio.to_thread(file.write, chunk)
        except BaseException:
            to.unlink(missing_ok=True)
            raise

    async def size(self, path: str) -> int | None:
        """Returns the size in bytes, or None when there is no such object."""
        stat = await self.stat(path)
        return stat.size if stat else None

    async def stat(self, path: str) -> Stat | None:
        """Returns size and etag, or None when there is no such object."""
        with translated_errors():
            try:
                return _stat(await obstore.head_async(self.store, path))
            except FileNotFoundError:
                return None

    async def stream(
        self, path: str, start: int = 0, end: int | None = None, version: Stat | None = None
    ) -> AsyncIterator[bytes]:
        """Yields the bytes from `start` up to but not including `end`.

        Raises FileNotFoundError, and ObjectChangedError, before the first byte, if it is not the `version` any more.
        """
        if end is not None and end <= start:
            return
        with translated_errors():
            result = await obstore.get_async(self.store, path, options=_range(start, end))
            if version not in (None, _stat(result.meta)):
                raise ObjectChangedError
            async for chunk in result.stream(CHUNK):
                yield chunk

    async def folder_size(self, path: str) -> int:
        """Returns the total size, in bytes, of the objects below `path`."""
        with translated_errors():
            return sum([meta["size"] async for found in obstore.list(self.store, prefix=path) for meta in found])

    async def delete(self, path: str) -> None:
        """Deletes an object, if it exists."""
        with translated_errors():
            try:
                await obstore.delete_async(self.store, path)
            except FileNotFoundError:
                return

    async def delete_folder(self, path: str) -> None:
        """Deletes all objects below `path`."""
        with translated_errors():
            async for found in obstore.list(self.store, prefix=path):
                await obstore.delete_async(self.store, [meta["path"] for meta in found])

    async def _put(self, path: str, chunks: AsyncIterator[bytes], content_type: str | None) -> int:
        """Writes small content in one request; the parts of larger content are uploaded while it is still read."""
        is_folder = isinstance(self.store, LocalStore)
        attributes: Attributes = {"Content-Type": content_type} if content_type and not is_folder else {}
        head = bytearray()
        async for chunk in chunks:
            head += chunk
            if len(head) >= _PART:
                return await self._put_parts(path, bytes(head), chunks, attributes)
        with translated_errors():
            await obstore.put_async(self.store, path, bytes(head), attributes=attributes, use_multipart=False)
        return len(head)

    async def _put_parts(self, path: str, head: bytes, rest: AsyncIterator[bytes], attributes: "Attributes") -> int:
        written = 0

        async def counted() -> AsyncIterator[bytes]:
            nonlocal written
            written += len(head)
            yield head
            async for chunk in rest:
                written += len(chunk)
                yield chunk

        with translated_errors():
            await obstore.put_async(
                self.store,
                path,
                counted(),
                attributes=attributes,
                chunk_size=_PART,
                max_concurrency=_PARTS_IN_FLIGHT,
            )
        return written

    async def _concatenate(self, parts: Sequence[str]) -> AsyncIterator[bytes]:
        for part in parts:
            async for chunk in self.stream(part):
                yield chunk


def open_objects(location: str | Path) -> Objects:
    """Opens a folder, or a URL such as s3://bucket/folder (credentials and endpoint come from AWS_* variables).

    Creates the folder. Raises KeyreelError when the location cannot be used.
    """
    scheme, is_url, path = str(location).partition("://")
    try:
        if is_url and scheme != "file":
            return Objects(from_url(str(location), retry_config=_RETRIES))
        folder = Path(unquote(path) if is_url else location)
        folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        return Objects(LocalStore(folder, automatic_cleanup=True))
    except (BaseError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise KeyreelError(f"Cannot open the object store {location}: {reason}.") from error


async def sweep_files(store: Store, objects: Objects) -> int:
    """Deletes expired files and returns their number. Those that the object store cannot delete are tried again later.

    Each object is deleted before its row: see store.files.
    """
    swept, kept = 0, set[str]()
    while len(kept) < _MAX_FAILED and (expired := await store.files.expired(besides=kept)):
        for file in expired:
            try:
                await objects.delete(file.object)
                await objects.delete_folder(parts_folder(file.id))
            except OSError as error:
                _log.warning("file_not_deleted", file=file.id, reason=str(error))
                kept.add(file.id)
                continue
            await store.files.remove(file.id)
            swept += 1
    return swept


def parts_folder(file_id: str) -> str:
    """Returns the folder of a file's parts, which are kept there until all have been uploaded."""
    return f"parts/{file_id}"


def _remove_leftovers(folder: Path) -> None:
    """Deletes what killed processes left unfinished. Younger files may belong to a process that is writing now."""
    for path in folder.rglob("*#[0-9]*"):
        if path.stat().st_mtime < time.time() - _DAY:
            path.unlink(missing_ok=True)


def _stat(meta: "ObjectMeta") -> Stat:
    etag = meta["e_tag"] or f"{meta['last_modified'].timestamp()}-{meta['size']}"
    return Stat(meta["size"], '"' + etag.strip('"') + '"')


def _range(start: int, end: int | None) -> "GetOptions":
    if end is not None:
        return {"range": (start, end)}
    return {"range": {"offset": start}} if start else {}


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raises ObjectStoreError in place of obstore's own errors."""
    try:
        yield
    except BaseError as error:
        reason = str(error).partition("\n")[0]
        raise ObjectStoreError(f"The file store failed: {reason}") from error


async def _single(chunk: bytes) -> AsyncIterator[bytes]:
    yield chunk


async def _read(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK):
            yield chunk
