"""Fetches inputs from URLs, data URIs and paths to files, under size limits and an address policy."""

import asyncio
import binascii
import hashlib
import os
import re
import secrets
import stat
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from email.message import Message
from pathlib import Path
from typing import BinaryIO, Self
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from keyreel.checkpoints.hub import content_sha256
from keyreel.errors import Loc, RequestError
from keyreel.inputs.lora_cache import Download, LoRACache
from keyreel.net.addresses import AddressPolicy, RefusedAddressError, guarded_session
from keyreel.video.job import InputFile

CHUNK = 1024 * 1024
MAX_REDIRECTS = 5
NOT_MODIFIED = 304
REDIRECTS = {301, 302, 303, 307, 308}
_TO_BASE64 = bytes.maketrans(b"-_", b"+/")
SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):", re.IGNORECASE)


class Fetcher:
    """Fetches files to `cache`, where each is stored once, named by the SHA-256 of its content.

    timeout: seconds for one file, redirects included. local_base: allows paths and file URLs; relative paths start at
    this folder, but every file that the process can read is accessible. Use it only for the user's own command line,
    never for requests of others. loras: where downloaded LoRAs stay, to be used again.
    """

    def __init__(
        self,
        cache: Path,
        policy: AddressPolicy,
        timeout: float,
        local_base: Path | None = None,
        *,
        resolver: AbstractResolver | None = None,
        loras: LoRACache | None = None,
    ) -> None:
        self._cache = cache
        self.loras = loras
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
        self, source: str, *, max_bytes: int, loc: Loc, headers: Mapping[str, str] | None = None, is_lora: bool = False
    ) -> InputFile:
        """Returns the file at a URL, data URI or path. Raises RequestError.

        headers: sent to the host in `source` only, not to hosts that it redirects to.
        """
        match _scheme(source):
            case "http" | "https":
                loras = self.loras if is_lora else None
                return await self._download(source, max_bytes, loc, headers or {}, loras)
            case "data":
                return await self._decode_data_uri(source, max_bytes, loc)
            case "" | "file":
                return await self._local(source, max_bytes, loc)
            case scheme:
                raise _failed(loc, f"{scheme}: URLs cannot be fetched. Give an HTTP URL or a data URI.")

    def lend(self, path: Path, loras: LoRACache) -> Path:
        """Puts a file that was downloaded from the hub to `loras` beside the other files."""
        return loras.lend_from_hub(path, self._cache)

    async def _download(
        self, source: str, max_bytes: int, loc: Loc, headers: Mapping[str, str], loras: LoRACache | None
    ) -> InputFile:
        url = _parse_url(source, loc)
        known = await asyncio.to_thread(loras.borrow, source, self._cache) if loras else None
        conditions = known[0].conditions if known else {}
        try:
            async with asyncio.timeout(self._timeout), self._follow(url, headers, loc, conditions) as response:
                if known and response.status == NOT_MODIFIED:
                    return borrowed(*known, max_bytes, loc)
                _check_size(response.content_length or 0, max_bytes, loc)
                path, sha256 = await self._store(response.content.iter_chunked(CHUNK), max_bytes, loc)
                file = InputFile(path, sha256, _name(response), _content_type(response.headers))
                if loras:
                    await asyncio.to_thread(loras.keep, source, file, response.headers)
                return file
        except TimeoutError:
            raise _failed(
                loc,
                f"The download from {url.host} took longer than {self._timeout:g} seconds. "
                "Try again, or put the file on a faster server.",
            ) from None

    @asynccontextmanager
    async def _follow(
        self, url: URL, headers: Mapping[str, str], loc: Loc, conditions: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yields the response after all redirects. Converts its errors, and those of the block, to RequestError.

        conditions: headers for every host. Any of them may answer 304.
        """
        origin = url.origin()
        for _ in range(MAX_REDIRECTS + 1):
            allowed = {**conditions, **(headers if url.origin() == origin else {})}
            with _request_errors(url, loc):
                async with self._session.get(url, headers=allowed, allow_redirects=False) as response:
                    if response.status not in REDIRECTS:
                        if not (conditions and response.status == NOT_MODIFIED):
                            _check_status(response, loc)
                        yield response
                        return
                    url = _next_hop(url, response.headers.get("Location", ""), loc)
        raise _failed(loc, f"{origin.host} redirects more than {MAX_REDIRECTS} times.")

    async def _decode_data_uri(self, source: str, max_bytes: int, loc: Loc) -> InputFile:
        content_type, pieces = await asyncio.to_thread(parse_data_uri, source, max_bytes, loc)
        path, sha256 = await self._store(_each(pieces), max_bytes, loc)
        return InputFile(path, sha256, "data", content_type)

    async def _store(self, chunks: AsyncIterable[bytes], max_bytes: int, loc: Loc) -> tuple[Path, str]:
        """Writes a file to the cache. Returns its path and SHA-256. It gets its final name only when it is complete."""
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
                await asyncio.to_thread(_flush_to_disk, file)
            return partial.replace(self._cache / digest.hexdigest()), digest.hexdigest()
        finally:
            partial.unlink(missing_ok=True)

    async def _local(self, source: str, max_bytes: int, loc: Loc) -> InputFile:
        if self.local_base is None:
            raise _failed(loc, "This is neither an HTTP URL nor a data URI, and paths on the server are not allowed.")
        try:
            path = self.local_base / _local_path(source)
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise _failed(loc, f"{path} is not a file.")
            _check_size(status.st_size, max_bytes, loc)
            _check_not_empty(status.st_size, loc)
            return InputFile(path, await asyncio.to_thread(content_sha256, path), path.name)
        except OSError as error:
            raise _failed(loc, f"{source} cannot be read: {error.strerror}.") from error
        except ValueError as error:
            raise _failed(loc, f"{source!r} is not a path.") from error


def _scheme(source: str) -> str:
    """Returns the URL scheme in lower case, or an empty string for a path, which may start with a drive letter."""
    match = SCHEME.match(source)
    return match[1].lower() if match else ""


def _parse_url(source: str, loc: Loc) -> URL:
    try:
        url = URL(source)
        url.origin()  # raises ValueError without a host
    except ValueError:
        raise _failed(loc, "This is not a valid URL. It should look like https://example.com/picture.png.") from None
    return url


def _next_hop(url: URL, location: str, loc: Loc) -> URL:
    """Returns the target of a redirect. It must be HTTP or HTTPS; HTTPS must not redirect to HTTP."""
    try:
        target = url.join(_parse_url(location, loc) if _scheme(location) else URL(location))
    except ValueError:
        raise _failed(loc, f"{url.host} redirects to an invalid URL.") from None
    if not location or target.scheme not in ("http", "https"):
        raise _failed(loc, f"{url.host} redirects to a URL that is neither HTTP nor HTTPS.")
    if url.scheme == "https" and target.scheme == "http":
        raise _failed(loc, f"{url.host} redirects from HTTPS to unencrypted HTTP.")
    return target


@contextmanager
def _request_errors(url: URL, loc: Loc) -> Iterator[None]:
    """Converts errors to RequestError. It names the host and a reason, but neither the URL nor the cause: both may
    contain a secret from the query.
    """
    try:
        yield
    except (aiohttp.ClientError, UnicodeError) as error:
        raise _failed(loc, f"The download from {url.host} failed: {_reason(error)}. Check the URL.") from None


def _reason(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorDNSError() | UnicodeError():
            return "the host name cannot be resolved"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            return "a secure connection cannot be made (its certificate or TLS version is not accepted)"
        case aiohttp.ClientConnectorError(os_error=RefusedAddressError() as refused):
            return str(refused)
        case aiohttp.ClientConnectorError(os_error=ConnectionRefusedError()):
            return "connection refused"
        case aiohttp.ClientConnectorError():
            return "the host cannot be reached"
        case aiohttp.InvalidURL():
            return "the URL is not valid"
    return "the connection was interrupted, or the server does not speak HTTP"


def _check_status(response: aiohttp.ClientResponse, loc: Loc) -> None:
    if not 200 <= response.status < 300:
        raise _failed(
            loc,
            f"{response.url.host} answered with status {response.status}. "
            "Check that the URL is correct and needs no login.",
        )


def _check_size(size: int, max_bytes: int, loc: Loc) -> None:
    if size > max_bytes:
        raise RequestError.at(
            loc,
            f"The file is larger than the {max_bytes} bytes allowed here. Send a smaller one.",
            "file_too_large",
            max_size=max_bytes,
        )


def borrowed(known: Download, path: Path, max_bytes: int, loc: Loc) -> InputFile:
    """Returns a file that a LoRACache has lent. Raises RequestError if it is too large."""
    _check_size(path.stat().st_size, max_bytes, loc)
    return InputFile(path, known.sha256, known.name, known.content_type)


def _check_not_empty(size: int, loc: Loc) -> None:
    if not size:
        raise _failed(loc, "The file is empty.")


def _failed(loc: Loc, message: str) -> RequestError:
    return RequestError.at(loc, message, "file_download_error")


def _name(response: aiohttp.ClientResponse) -> str:
    """Returns the file name that the server gives, or else the last part of the URL's path. Never returns a path."""
    message = Message()
    message["Content-Disposition"] = response.headers.get("Content-Disposition", "")
    name = re.split(r"[/\\]", message.get_filename() or response.url.name)[-1]
    return "".join(filter(str.isprintable, name)).strip(". ")[:255] or "file"


def _content_type(headers: Mapping[str, str]) -> str | None:
    return headers.get("Content-Type", "").partition(";")[0].strip().lower() or None


def parse_data_uri(source: str, max_bytes: int, loc: Loc) -> tuple[str | None, list[bytes]]:
    """Returns content type and content, in pieces. Base64 may be unpadded or URL-safe. Raises RequestError.

    It works piece by piece so that other threads run between them: decoding 100 MiB at once stops them for a second.
    """
    head, comma, _ = source[: source.find(",") + 1].partition(":")[2].partition(",")
    try:
        if not comma:
            raise ValueError("no comma")
        unquoted = _unquoted(source, source.find(",") + 1)
        decoded = _decode_base64(unquoted) if head.lower().endswith(";base64") else unquoted
        content = list(_limited(decoded, max_bytes, loc))
    except ValueError:
        message = "This is not a valid data URI. It should look like data:image/png;base64,iVBORw0..."
        raise _failed(loc, message) from None
    return head.partition(";")[0].strip().lower() or None, content


def _unquoted(text: str, start: int) -> Iterator[bytes]:
    """Yields `text` from `start` on, percent-decoded. No piece ends within an escape."""
    while start < len(text):
        end = start + CHUNK
        escape = text.find("%", end - 2, end) if end < len(text) else -1
        end = end if escape < 0 else escape
        yield unquote_to_bytes(text[start:end])
        start = end


def _decode_base64(pieces: Iterable[bytes]) -> Iterator[bytes]:
    rest, is_padded = b"", False
    for piece in pieces:
        text = piece.translate(_TO_BASE64, b" \t\r\n")
        digits = text.rstrip(b"=")
        if b"=" in digits or (is_padded and digits):
            raise ValueError("text after the padding")
        is_padded = len(digits) < len(text) or is_padded
        rest += digits
        whole = len(rest) // 4 * 4
        yield binascii.a2b_base64(rest[:whole], strict_mode=True)
        rest = rest[whole:]
    yield binascii.a2b_base64(rest + b"=" * (-len(rest) % 4), strict_mode=True)


def _limited(pieces: Iterable[bytes], max_bytes: int, loc: Loc) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        _check_size(size, max_bytes, loc)
        yield piece


async def _each(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def _local_path(source: str) -> str:
    if not _scheme(source):
        return source
    url = urlsplit(source)
    if url.netloc not in ("", "localhost"):
        raise ValueError("a file URL of another machine")
    return unquote(url.path)


def _flush_to_disk(file: BinaryIO) -> None:
    """Writes the content to disk before the file gets its name: after a crash, no name may refer to lost content."""
    file.flush()
    os.fsync(file.fileno())
