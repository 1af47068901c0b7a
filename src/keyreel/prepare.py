"""From a request to a job: everything is fetched, checked and decoded before a device is needed."""

import asyncio
import secrets
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from keyreel.canvas import Grid, Size, drawn_frames, latent_shape, output_size, pass_sizes
from keyreel.errors import Loc, Problem, RequestError
from keyreel.fetch import Fetched, Fetcher
from keyreel.job import AdapterFile, Condition, Job, Sampling
from keyreel.loras import find_lora
from keyreel.media.clips import ClipInfo, clip_info, read_clip
from keyreel.media.images import image_size, read_image
from keyreel.media.limits import Limits
from keyreel.media.mp4 import compressed
from keyreel.recipes import RecipeName
from keyreel.schema import ImageCondition, LoRA, Request, VideoCondition
from keyreel.settings import Settings
from keyreel.timeline import Span, check_tokens, place

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Source:
    """A picture or clip of the request, fetched and measured."""

    file: Fetched
    size: Size
    span: Span
    strength: float
    frames: tuple[int, ...] = ()
    """Of a clip: the numbers of those that are taken, in the order in which they are."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The job, and the content hash of each input file by its place in the request (for the video's metadata)."""

    job: Job
    inputs: dict[str, str]


async def prepare(request: Request, grid: Grid, fetcher: Fetcher, settings: Settings, recipe: RecipeName) -> Prepared:
    """Fetches, checks and decodes all that the request names. Raises RequestError with every problem of a kind.

    recipe: the one that has been chosen for it, see `keyreel.recipes.choose_recipe`.
    """
    limits = Limits.from_settings(settings)
    sources, adapters = await asyncio.gather(
        _gather(_sources(request, fetcher, settings, limits)),
        _gather(_adapter(lora, index, fetcher, settings) for index, lora in enumerate(request.loras) if lora.scale),
    )
    size = output_size(request.resolution, request.aspect_ratio, _first_size(sources))
    drawn = drawn_frames(request.number_of_frames, grid)
    spans = place([source.span for source in sources], request.number_of_frames, drawn, grid)
    check_tokens(latent_shape(pass_sizes(size, grid, recipe)[-1], drawn, grid), spans, settings.max_tokens)
    conditions = [
        await asyncio.to_thread(_read, source, span, size, limits, request.constant_rate_factor)
        for source, span in zip(sources, spans, strict=True)
    ]
    job = Job(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        size=size,
        frames=request.number_of_frames,
        steps=request.number_of_steps,
        frame_rate=request.frame_rate,
        seed=request.seed if request.seed is not None else secrets.randbelow(2**32),
        reverse=request.reverse_video,
        conditions=tuple(conditions),
        adapters=tuple(adapters),
        sampling=_sampling(request, settings, recipe),
        passes=request.passes.plain() if request.passes else None,
    )
    hashes = {_dotted(source.span.loc): source.file.sha256 for source in sources}
    return Prepared(job, hashes | {_dotted(adapter.loc): adapter.sha256 for adapter in adapters})


def _sources(
    request: Request, fetcher: Fetcher, settings: Settings, limits: Limits
) -> Iterable[Coroutine[Any, Any, Source]]:
    """Conditions of strength 0 do nothing and are not even fetched."""
    for index, image in enumerate(request.images):
        if image.strength:
            yield _image(image, ("images", index), fetcher, settings, limits)
    for index, video in enumerate(request.videos):
        if video.strength:
            yield _clip(video, ("videos", index), fetcher, settings, limits)


async def _image(image: ImageCondition, loc: Loc, fetcher: Fetcher, settings: Settings, limits: Limits) -> Source:
    field = (*loc, "image_url")
    file = await fetcher.fetch(image.image_url, max_bytes=settings.max_image_bytes, loc=field)
    size = await asyncio.to_thread(image_size, file.path, limits, field)
    return Source(file, size, Span(loc, image.start_frame_number, 1, is_clip=False), image.strength)


async def _clip(video: VideoCondition, loc: Loc, fetcher: Fetcher, settings: Settings, limits: Limits) -> Source:
    field = (*loc, "video_url")
    file = await fetcher.fetch(video.video_url, max_bytes=settings.max_video_bytes, loc=field)
    info = await asyncio.to_thread(clip_info, file.path, limits, field)
    frames = taken_frames(info, video)
    return Source(
        file, info.size, Span(loc, video.start_frame_number, len(frames), is_clip=True), video.strength, frames
    )


async def _adapter(lora: LoRA, index: int, fetcher: Fetcher, settings: Settings) -> AdapterFile:
    loc = ("loras", index, "path")
    file = await find_lora(lora, fetcher, max_bytes=settings.max_lora_bytes, loc=loc)
    return AdapterFile(file.path, file.name, file.sha256, lora.scale, loc)


async def _gather(tasks: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Waits for all, so that one answer names every input that is wrong."""
    results = await asyncio.gather(*tasks, return_exceptions=True)
    problems: list[Problem] = []
    values: list[T] = []
    for result in results:
        if isinstance(result, RequestError):
            problems.extend(result.problems)
        elif isinstance(result, BaseException):
            raise result
        else:
            values.append(result)
    if problems:
        raise RequestError(*problems)
    return values


def taken_frames(info: ClipInfo, video: VideoCondition) -> tuple[int, ...]:
    """The numbers of the clip's frames that the video follows, in order."""
    frames: Sequence[int] = range(info.frames)
    if video.target_fps:
        count = max(1, round(info.seconds * video.target_fps))
        frames = [index * info.frames // count for index in range(count)]
    frames = frames[: video.max_num_frames]
    return tuple(reversed(frames) if video.reverse else frames)


def _sampling(request: Request, settings: Settings, recipe: RecipeName) -> Sampling:
    sampling = Sampling.from_settings(settings, recipe)
    return sampling if request.tone_map is None else replace(sampling, tone_map=request.tone_map)


def _first_size(sources: Sequence[Source]) -> Size | None:
    """The earliest condition's size; of several at one frame the first picture's."""
    return min(sources, key=lambda source: source.span.start).size if sources else None


def _read(source: Source, span: Span, size: Size, limits: Limits, rate_factor: int) -> Condition:
    if span.is_clip:
        pixels = read_clip(source.file.path, size, source.frames[: span.count], limits, (*span.loc, "video_url"))
    else:
        pixels = read_image(source.file.path, size, limits, (*span.loc, "image_url"))[None]
    return Condition(compressed(pixels, rate_factor) if rate_factor else pixels, span.start, source.strength)


def _dotted(loc: Loc) -> str:
    return ".".join(map(str, loc))
