"""Fetches a request's inputs and has the decode process decode them, before the device is free."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

from yarl import URL

from keyreel.errors import Loc, RequestError
from keyreel.fal.schema import SOURCE_FIELDS, Request, replace_sources, with_published_steps
from keyreel.files.links import Access, Links, access
from keyreel.files.objects import Stat
from keyreel.inputs.fetch import Fetcher, borrowed
from keyreel.inputs.lora_cache import LoRACache
from keyreel.inputs.loras import hub_api
from keyreel.inputs.sources import fetch_inputs
from keyreel.media.limits import Limits
from keyreel.safety.provenance import without_secrets
from keyreel.store.records import File
from keyreel.video.job import InputFile
from keyreel.video.recipes import choose_recipe
from keyreel.worker.context import WorkerContext
from keyreel.worker.decode_process import decode_error
from keyreel.worker.messages import Crashed, Decode, Failed, Message, Ready, Refused, Spooled
from keyreel.worker.process import Process, ProcessGoneError
from keyreel.worker.retries import retry_on_store_error

DECODE_TIMEOUT = 300.0
"""Seconds of wall-clock time for one request. The decode process limits its CPU time separately."""


class RetryableError(Exception):
    """An error that is not the request's fault: another attempt may succeed."""


class RequestFetcher(Fetcher):
    """Fetches the inputs of one request. Files of this server are read from the object store, not over HTTP.

    key_id: the API key that owns the request.
    folder: where the files go. It is deleted with the request.
    """

    def __init__(self, context: WorkerContext, key_id: str, folder: Path) -> None:
        loras = LoRACache(context.spool.parent / "loras", context.settings.lora_cache_bytes)
        super().__init__(folder, context.policy, context.settings.fetch_timeout, loras=loras)
        self._context = context
        self._key_id = key_id

    async def fetch(
        self, source: str, *, max_bytes: int, loc: Loc, headers: Mapping[str, str] | None = None, is_lora: bool = False
    ) -> InputFile:
        ref = self._context.links.file_of(source)
        if ref is None:
            return await super().fetch(source, max_bytes=max_bytes, loc=loc, headers=headers, is_lora=is_lora)
        # A bucket or a database that is away for a moment must not cost an attempt.
        loras = self.loras if is_lora else None
        return await retry_on_store_error(lambda: self._read_stored(ref.id, max_bytes, loc, loras))

    async def _read_stored(self, file_id: str, max_bytes: int, loc: Loc, loras: LoRACache | None) -> InputFile:
        file = await self._context.store.files.get(file_id)
        if file is None or access(file, self._key_id) is not Access.ALLOW:
            raise _missing_file(loc)
        try:
            if loras:
                return await self._read_once(file, max_bytes, loc, loras)
            return await self._read_object(file, max_bytes, loc)
        except FileNotFoundError:
            raise _missing_file(loc) from None

    async def _read_once(self, file: File, max_bytes: int, loc: Loc, loras: LoRACache) -> InputFile:
        """Takes the object from `loras` as long as it is the same."""
        version, name = await self._context.objects.stat(file.object), f"object:{file.object}"
        if version is None:
            raise FileNotFoundError(file.object)
        known = await asyncio.to_thread(loras.borrow, name, self._cache)
        if known and known[0].etag == version.etag:
            return borrowed(*known, max_bytes, loc)
        found = await self._read_object(file, max_bytes, loc, version)
        await asyncio.to_thread(loras.keep, name, found, {"ETag": version.etag})
        return found

    async def _read_object(self, file: File, max_bytes: int, loc: Loc, version: Stat | None = None) -> InputFile:
        path, sha256 = await self._store(self._context.objects.stream(file.object, version=version), max_bytes, loc)
        return InputFile(path, sha256, file.name, file.content_type)


class Decoder:
    """Has the decode process decode inputs. A process that dies or takes too long is replaced."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process: Process | None = None
        self._lock = asyncio.Lock()

    async def start(self) -> Process:
        """Starts the process, which takes a second. Call it early so that the first request need not wait."""
        self._process = await Process.start(self._command)
        return self._process

    async def decode(self, order: Decode) -> Spooled:
        """Decodes the files of one request. Raises RequestError or RetryableError.

        Files are blamed for the second failure: the first may have another cause, such as too little memory.
        """
        reason = ""
        async with self._lock:
            for _ in range(2):
                process = await self._running_process()
                try:
                    return _read_answer(await self._ask(process, order), order)
                except TimeoutError:
                    reason = "took too long"
                except ProcessGoneError as error:
                    reason = f"crashed: it {error}"
                if not order.files:
                    raise RetryableError(f"The decode process {reason}")
        raise decode_error(f"cannot be decoded: the decoder {reason.partition(':')[0]}")

    async def close(self) -> None:
        process, self._process = self._process, None
        if process:
            await process.close()

    async def _running_process(self) -> Process:
        """Returns the process, started again if it has died."""
        if self._process and self._process.gone.is_set():
            await self.close()
        return self._process or await self.start()

    async def _ask(self, process: Process, order: Decode) -> Message:
        try:
            async with asyncio.timeout(DECODE_TIMEOUT):
                await process.send(order)
                return await process.receive()
        except BaseException:  # also when cancelled: the next caller must not receive this answer
            process.kill()
            raise


async def prepare_inputs(
    request: Request, key_id: str, context: WorkerContext, decoder: Decoder, model: Ready, folder: Path
) -> Spooled:
    """Fetches, checks and decodes the inputs into `folder`. Raises RequestError or RetryableError."""
    settings, published = context.settings, model.capabilities.published
    recipe, limits = choose_recipe(request.recipe, model.capabilities, settings.recipe), Limits.from_settings(settings)
    request = with_published_steps(request, settings.recipe, published)
    async with RequestFetcher(context, key_id, folder / "inputs") as fetcher:
        files = await fetch_inputs(request, fetcher, limits, hub_api(own_token=settings.hub_token_for_loras))
    order = Decode(
        # Without URLs: a URL may contain a secret, or a whole file as a data URI.
        request=replace_sources(request, lambda _source: ""),
        files=tuple(files.items()),
        grid=model.grid,
        linears=model.linears if request.loras else {},
        limits=limits,
        sampling=settings.sampling(recipe, published),
        folder=folder,
    )
    return await decoder.decode(order)


async def delete_refused(request: Request, key_id: str, context: WorkerContext, error: RequestError) -> None:
    """Deletes uploaded files that a checker refused, if the request's key owns them."""
    for problem in error.problems:
        source = _source_at(request, problem.loc)
        ref = context.links.file_of(source) if source else None
        file = await context.store.files.get(ref.id) if ref else None
        if file and file.key_id == key_id:
            await context.objects.delete(file.object)
            await context.store.files.remove(file.id)


def redacted(source: str, links: Links) -> str:
    """Returns an input's source without secrets, for the video's metadata.

    The path of a link to this server grants access to the file, so only the file name remains.
    """
    if links.file_of(source):
        return unquote(URL(source).name)
    return without_secrets(source)


def _source_at(request: Request, loc: Loc) -> str | None:
    """Returns the URL of the picture or clip at `loc`, or None if `loc` is not about one."""
    match loc:
        case (("images" | "videos") as name, int(index), _):
            source: str = getattr(getattr(request, name)[index], SOURCE_FIELDS[name])
            return source
    return None


def _read_answer(answer: Message, order: Decode) -> Spooled:
    """Returns the decoded inputs. Trusts no path and no hash in the answer: a file may have taken the decoder over."""
    match answer:
        case Spooled(prepared):
            given = {(file.path, file.sha256) for _, file in order.files}
            if {(adapter.path, adapter.sha256) for adapter in prepared.job.adapters} <= given:
                return answer
            raise RetryableError("The decode process answered with a file that it was not given")
        case Crashed(how):
            raise ProcessGoneError(how)
        case Refused(problems):
            raise RequestError(*problems)
        case Failed(message):
            raise RetryableError(message)
    raise RetryableError(f"The decode process answered with {type(answer).__name__}")


def _missing_file(loc: Loc) -> RequestError:
    message = "This server has no such file, or the file has expired. Upload it again."
    return RequestError.at(loc, message, "file_download_error")
