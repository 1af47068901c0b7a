"""What a request names, fetched and handed to the preparer: all of it before a device is free."""

import asyncio
import os
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from yarl import URL

from keyreel.errors import Loc, Problem, RequestError
from keyreel.fetch import Fetched, Fetcher
from keyreel.job import Sampling
from keyreel.links import Access, Links, access
from keyreel.loras import find_lora
from keyreel.provenance import without_secrets
from keyreel.recipes import choose_recipe
from keyreel.schema import Request
from keyreel.settings import Settings
from keyreel.worker.context import WorkerContext
from keyreel.worker.messages import Failed, Message, Prepare, Ready, Refused, Spooled
from keyreel.worker.preparer import too_demanding
from keyreel.worker.process import Process, ProcessGoneError

PATIENCE = 300.0
"""Seconds of wall-clock time for the preparer; its processor time has a limit of its own."""
FETCHED = "fetched:"
VARIABLES = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TMPDIR", "TZ")
"""What the preparer sees of our environment, where keys and tokens are."""


class MachineError(Exception):
    """What failed is not the request's doing: another attempt may succeed."""


class RequestFetcher(Fetcher):
    """Fetches on behalf of the owner of one request. Our own files are read where they are kept, never over HTTP.

    folder: the request's own, with which its inputs go.
    """

    def __init__(self, context: WorkerContext, key_id: str, folder: Path) -> None:
        super().__init__(folder, context.policy, context.settings.fetch_timeout)
        self._context = context
        self._key_id = key_id

    async def fetch(
        self, source: str, *, max_bytes: int, loc: Loc, headers: Mapping[str, str] | None = None
    ) -> Fetched:
        ref = self._context.links.file_of(source)
        if ref is None:
            return await super().fetch(source, max_bytes=max_bytes, loc=loc, headers=headers)
        return await self._read_own(ref.id, max_bytes, loc)

    async def _read_own(self, file_id: str, max_bytes: int, loc: Loc) -> Fetched:
        file = await self._context.store.files.get(file_id)
        if file is None or access(file, self._key_id) is not Access.ALLOW:
            raise _not_here(loc)
        try:
            path, sha256 = await self._store(self._context.objects.stream(file.object), max_bytes, loc)
        except FileNotFoundError:
            raise _not_here(loc) from None
        return Fetched(path, sha256, file.name, file.content_type)


class Preparer:
    """Has inputs decoded in a process of its own, which is replaced when it dies or is given up on."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process: Process | None = None
        self._turn = asyncio.Lock()

    async def start(self) -> Process:
        """May be called ahead of the first request: it takes a second."""
        self._process = await Process.start(self._command, _environment())
        return self._process

    async def prepare(self, order: Prepare) -> Spooled:
        """Raises RequestError or MachineError."""
        async with self._turn:
            process = await self._living()
            try:
                return _spooled(await self._ask(process, order))
            except (ProcessGoneError, TimeoutError):
                raise too_demanding("cannot be decoded: the decoder crashed, or did not come to an end") from None

    async def close(self) -> None:
        process, self._process = self._process, None
        if process:
            await process.close()

    async def _living(self) -> Process:
        if self._process and self._process.gone.is_set():
            await self.close()
        return self._process or await self.start()

    async def _ask(self, process: Process, order: Prepare) -> Message:
        try:
            await process.send(order)
            async with asyncio.timeout(PATIENCE):
                return await process.receive()
        except BaseException:  # also when the request was cancelled: nobody will take its answer
            process.kill()
            raise


async def prepare_inputs(
    request: Request, key_id: str, context: WorkerContext, preparer: Preparer, model: Ready, folder: Path
) -> Spooled:
    """Everything fetched, checked and decoded into `folder`. Raises RequestError or MachineError."""
    recipe = choose_recipe(request.recipe, model.abilities, context.settings.recipe)
    async with RequestFetcher(context, key_id, folder / "inputs") as fetcher:
        files = await fetch_inputs(request, fetcher, context.settings)
    order = Prepare(
        request=_without_sources(request),
        files=tuple(files.items()),
        grid=model.grid,
        linears=model.linears if request.loras else {},
        settings=_settings(context.settings),
        recipe=recipe,
        folder=folder,
    )
    return await preparer.prepare(order)


async def fetch_inputs(request: Request, fetcher: Fetcher, settings: Settings) -> dict[Loc, Fetched]:
    """By their places in the request. Waits for all, so that one answer names every input that cannot be had."""
    wanted = dict(_wanted(request, fetcher, settings))
    results = await asyncio.gather(*wanted.values(), return_exceptions=True)
    problems: list[Problem] = []
    files: dict[Loc, Fetched] = {}
    for loc, result in zip(wanted, results, strict=True):
        match result:
            case RequestError():
                problems.extend(result.problems)
            case BaseException():
                raise result
            case _:
                files[loc] = result
    if problems:
        raise RequestError(*problems)
    return files


async def forget_refused(request: Request, key_id: str, context: WorkerContext, error: RequestError) -> None:
    """What a checker has refused is not kept here either, if its owner is the one who brought it."""
    for problem in error.problems:
        source = _source(request, problem.loc)
        ref = context.links.file_of(source) if source else None
        file = await context.store.files.get(ref.id) if ref else None
        if file and file.key_id == key_id:
            await context.objects.delete(file.object)
            await context.store.files.remove(file.id)


def redacted(source: str, links: Links) -> str:
    """What may be told of an input's source. The path of our own links is a permission: only the name remains."""
    if links.file_of(source):
        return unquote(URL(source).name)
    return without_secrets(source)


def _wanted(
    request: Request, fetcher: Fetcher, settings: Settings
) -> Iterator[tuple[Loc, Coroutine[Any, Any, Fetched]]]:
    """What `keyreel.prepare` will ask for: nothing that has no effect."""
    loc: Loc
    for index, image in enumerate(request.images):
        if image.strength:
            loc = ("images", index, "image_url")
            yield loc, fetcher.fetch(image.image_url, max_bytes=settings.max_image_bytes, loc=loc)
    for index, video in enumerate(request.videos):
        if video.strength:
            loc = ("videos", index, "video_url")
            yield loc, fetcher.fetch(video.video_url, max_bytes=settings.max_video_bytes, loc=loc)
    for index, lora in enumerate(request.loras):
        if lora.scale:
            loc = ("loras", index, "path")
            yield loc, find_lora(lora, fetcher, max_bytes=settings.max_lora_bytes, loc=loc)


def _source(request: Request, loc: Loc) -> str | None:
    match loc:
        case ("images", int(index), _):
            return request.images[index].image_url
        case ("videos", int(index), _):
            return request.videos[index].video_url
    return None


def _without_sources(request: Request) -> Request:
    """The request as the preparer gets it: a source's address may be a secret, or the whole file as a data URI."""
    return request.model_copy(
        update={
            "images": tuple(image.model_copy(update={"image_url": FETCHED}) for image in request.images),
            "videos": tuple(video.model_copy(update={"video_url": FETCHED}) for video in request.videos),
            "loras": tuple(lora.model_copy(update={"path": FETCHED}) for lora in request.loras),
        }
    )


def _settings(settings: Settings) -> dict[str, Any]:
    """Limits and sampling only: others hold secrets."""
    names = {name for name in Settings.model_fields if name.startswith("max_")} | set(Sampling.__slots__)
    return settings.model_dump(mode="json", include=names)


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def _spooled(answer: Message) -> Spooled:
    match answer:
        case Spooled():
            return answer
        case Refused(problems):
            raise RequestError(*problems)
        case Failed(message):
            raise MachineError(message)
    raise MachineError(f"The preparer answered with {type(answer).__name__}")


def _not_here(loc: Loc) -> RequestError:
    return RequestError.at(loc, "There is no such file here, or not any more. Upload it again.", "file_download_error")
