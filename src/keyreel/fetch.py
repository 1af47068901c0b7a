"""Inputs from URLs, data URIs and paths into files, under limits and an address policy."""

import asyncio
import base64
import hashlib
import os
import re
import secrets
import stat
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import BinaryIO, Self
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from keyreel.addresses import AddressPolicy, RefusedAddressError, guarded_session
from keyreel.errors import Loc, RequestError

__all__ = ["AddressPolicy", "Fetched", "Fetcher", "guarded_session"]

CHUNK = 1024 * 1024
MAX_REDIRECTS = 5
REDIRECTS = {301, 302, 303, 307, 308}
SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that is here. `name` and `content_type` are what the source says of it: believe neither."""

    path: Path
    sha256: str
    name: str
    content_type: str | None = None


class Fetcher:
    """Fetches into `cache`, where each file is stored once, named by the SHA-256 of its content.

    `timeout`: seconds for one file, redirects included. With a `local_base`, paths and file URLs are read;
    relative paths start there, but all files that this process can read are open. That is for a user's own
    command line, never for requests of others.
    """

    def __init__(
        self,
        cache: Path,
        policy: AddressPolicy,
        timeout: float,
        local_base: Path | None = None,
        *,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._cache = cache
        self._policy = policy
        self._timeout = timeout
        self.local_base = local_base
        self._resolver = resolver

    async def __aenter__(self) -> Self:
        self._cache.mkdir(parents=True, exist_ok=True)
        self._session = guarded_session(self._policy, self._timeout, self._resolver)
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._session.close()

    async def fetch(
        self, source: str, *, max_bytes: int, loc: Loc, headers: Mapping[str, str] | None = None
    ) -> Fetched:
        """`headers` go to the host in `source` and to no other that it may redirect to."""
        match _scheme(source):
            case "http" | "https":
                return await self._download(source, max_bytes, loc, headers or {})
            case "data":
                return await self._unpack(source, max_bytes, loc)
            case "" | "file":
                return await self._local(source, max_bytes, loc)
            case scheme:
                raise _failed(loc, f"{scheme}: URLs cannot be fetched. Give an HTTP URL or a data URI.")

    async def _download(self, source: str, max_bytes: int, loc: Loc, headers: Mapping[str, str]) -> Fetched:
        url = _parse_url(source, loc)
        try:
            async with asyncio.timeout(self._timeout), self._follow(url, headers, loc) as response:
                _check_size(response.content_length or 0, max_bytes, loc)
                path, sha256 = await self._store(response.content.iter_chunked(CHUNK), max_bytes, loc)
                return Fetched(path, sha256, _name(response), _content_type(response.headers))
        except TimeoutError:
            raise _failed(
                loc,
                f"The download from {url.host} took longer than {self._timeout:g} seconds. "
                "Try again, or put the file on a faster server.",
            ) from None

    @asynccontextmanager
    async def _follow(self, url: URL, headers: Mapping[str, str], loc: Loc) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer behind all redirects. Its errors, also those while it is read, become RequestErrors."""
        origin = url.origin()
        for _ in range(MAX_REDIRECTS + 1):
            own = headers if url.origin() == origin else {}
            with _explained(url, loc):
                async with self._session.get(url, headers=own, allow_redirects=False) as response:
                    if response.status not in REDIRECTS:
                        _check_status(response, loc)
                        yield response
                        return
                    url = _next_hop(url, response.headers.get("Location", ""), loc)
        raise _failed(loc, f"{origin.host} redirects more than {MAX_REDIRECTS} times.")

    async def _unpack(self, source: str, max_bytes: int, loc: Loc) -> Fetched:
        content_type, content = await asyncio.to_thread(parse_data_uri, source, max_bytes, loc)
        path, sha256 = await self._store(_single(content), max_bytes, loc)
        return Fetched(path, sha256, "data", content_type)

    async def _store(self, chunks: AsyncIterable[bytes], max_bytes: int, loc: Loc) -> tuple[Path, str]:
        """The stored file and its SHA-256. Until it is whole it has another name; an exception removes it."""
        partial = self._cache / f".{secrets.token_hex(8)}.part"
        digest, size = hashlib.sha256(), 0
        try:
            with partial.open("wb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    _check_size(size, max_bytes, loc)
                    await asyncio.to_thread(file.write, chunk)
                    await asyncio.to_thread(digest.update, chunk)
                _check_not_empty(size, loc)
                await asyncio.to_thread(_sync, file)
            return partial.replace(self._cache / digest.hexdigest()), digest.hexdigest()
        finally:
            partial.unlink(missing_ok=True)

    async def _local(self, source: str, max_bytes: int, loc: Loc) -> Fetched:
        if self.local_base is None:
            raise _failed(loc, "Files of the server cannot be named. Give a URL or a data URI.")
        try:
            path = self.local_base / _local_path(source)
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise _failed(loc, f"{path} is not a file.")
            _check_size(status.st_size, max_bytes, loc)
            _check_not_empty(status.st_size, loc)
            return Fetched(path, await asyncio.to_thread(_sha256, path), path.name)
        except OSError as error:
            raise _failed(loc, f"{source} cannot be read: {error.strerror}.") from error
        except ValueError as error:
            raise _failed(loc, f"{source!r} is not a path.") from error


def _scheme(source: str) -> str:
    """In lower case; empty for a path, also one that starts with a drive letter."""
    match = SCHEME.match(source)
    return match[1].lower() if match else ""


def _parse_url(source: str, loc: Loc) -> URL:
    try:
        url = URL(source)
        url.origin()  # fails without a host
    except ValueError:
        raise _failed(loc, "This is not a valid URL. It should look like https://example.com/picture.png.") from None
    return url


def _next_hop(url: URL, location: str, loc: Loc) -> URL:
    """Where a redirect leads: by HTTP or HTTPS, but never from HTTPS back to HTTP."""
    try:
        target = url.join(_parse_url(location, loc) if _scheme(location) else URL(location))
    except ValueError:
        raise _failed(loc, f"{url.host} redirects to what is not a valid URL.") from None
    if not location or target.scheme not in ("http", "https"):
        raise _failed(loc, f"{url.host} redirects to what is not an HTTP URL.")
    if url.scheme == "https" and target.scheme == "http":
        raise _failed(loc, f"{url.host} redirects from HTTPS to unencrypted HTTP.")
    return target


@contextmanager
def _explained(url: URL, loc: Loc) -> Iterator[None]:
    """Names the host and the reason, not the URL, whose query may hold a secret; nor the cause, which has it."""
    try:
        yield
    except (aiohttp.ClientError, UnicodeError) as error:
        raise _failed(loc, f"The download from {url.host} failed: {_reason(error)}. Check the URL.") from None


def _reason(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorDNSError() | UnicodeError():
            return "its name cannot be resolved"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            return "no secure connection can be made (its certificate or its TLS is not accepted)"
        case aiohttp.ClientConnectorError(os_error=RefusedAddressError() as refused):
            return str(refused)
        case aiohttp.ClientConnectorError(os_error=ConnectionRefusedError()):
            return "connection refused"
        case aiohttp.ClientConnectorError():
            return "it cannot be connected to"
        case aiohttp.InvalidURL():
            return "the URL is not valid"
    return "the connection broke off, or it does not speak HTTP"


def _check_status(response: aiohttp.ClientResponse, loc: Loc) -> None:
    if not 200 <= response.status < 300:
        raise _failed(
            loc,
            f"{response.url.host} answered with status {response.status}. "
            "Check that the URL is right and needs no login.",
        )


def _check_size(size: int, max_bytes: int, loc: Loc) -> None:
    if size > max_bytes:
        raise RequestError.at(
            loc,
            f"The file is larger than the {max_bytes} bytes allowed here. Send a smaller one.",
            "file_too_large",
            max_size=max_bytes,
        )


def _check_not_empty(size: int, loc: Loc) -> None:
    if not size:
        raise _failed(loc, "The file is empty.")


def _failed(loc: Loc, message: str) -> RequestError:
    return RequestError.at(loc, message, "file_download_error")


def _name(response: aiohttp.ClientResponse) -> str:
    """The name that the server gives, else the last part of the URL's path: a plain name, never a path."""
    message = Message()
    message["Content-Disposition"] = response.headers.get("Content-Disposition", "")
    name = re.split(r"[/\\]", message.get_filename() or response.url.name)[-1]
    return "".join(filter(str.isprintable, name)).strip(". ")[:255] or "file"


def _content_type(headers: Mapping[str, str]) -> str | None:
    return headers.get("Content-Type", "").partition(";")[0].strip().lower() or None


def parse_data_uri(source: str, max_bytes: int, loc: Loc) -> tuple[str | None, bytes]:
    """Content type and content (RFC 2397). Base64 may lack its padding or use the URL-safe alphabet."""
    head, comma, payload = source.partition(":")[2].partition(",")
    is_base64 = head.lower().endswith(";base64")
    try:
        if not comma:
            raise ValueError("no comma")
        content = unquote_to_bytes(payload)
        _check_size(len(content) * 3 // 4 - 2 if is_base64 else len(content), max_bytes, loc)
        if is_base64:
            content = _decode_base64(content)
    except ValueError:
        raise _failed(loc, "This is not a valid data URI, which looks like data:image/png;base64,iVBORw0...") from None
    return head.partition(";")[0].strip().lower() or None, content


def _decode_base64(text: bytes) -> bytes:
    text = text.translate(bytes.maketrans(b"-_", b"+/"), b" \t\r\n").rstrip(b"=")
    return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)


async def _single(chunk: bytes) -> AsyncIterator[bytes]:
    yield chunk


def _local_path(source: str) -> str:
    if not _scheme(source):
        return source
    url = urlsplit(source)
    if url.netloc not in ("", "localhost"):
        raise ValueError("a file URL of another machine")
    return unquote(url.path)


def _sync(file: BinaryIO) -> None:
    """On the disk before it gets its name: a crash must not leave a name on lost content."""
    file.flush()
    os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
