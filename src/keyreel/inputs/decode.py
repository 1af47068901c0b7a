"""Turns fetched files into a job: measures pictures and clips, places them on the timeline and decodes them."""

import asyncio
import secrets
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from keyreel.errors import Loc, gather
from keyreel.fal.schema import ImageCondition, Request, VideoCondition
from keyreel.media.clips import ClipInfo, clip_info, read_clip
from keyreel.media.images import Point, image_size, read_image
from keyreel.media.limits import Limits
from keyreel.video.canvas import Grid, Size, drawn_frames, latent_shape, output_size, pass_sizes
from keyreel.video.job import AdapterFile, Condition, InputFile, Job, Prepared, Sampling
from keyreel.video.timeline import Span, check_tokens, place

Files = Mapping[Loc, InputFile]
"""Fetched files by their locations in the request; see `keyreel.inputs.sources.fetch_inputs`."""


@dataclass(frozen=True, slots=True)
class _Source:
    """A measured picture or clip.

    frames: numbers of the clip's frames to use, in order. from_end: whether the last ones count if not all fit.
    focus: see `cover`.
    """

    file: InputFile
    loc: Loc
    size: Size
    span: Span
    strength: float
    focus: Point
    frames: tuple[int, ...] = ()
    from_end: bool = False

    def fitting(self, count: int) -> tuple[int, ...]:
        """Returns `count` of the frames."""
        return self.frames[-count:] if self.from_end else self.frames[:count]


async def decode(request: Request, files: Files, grid: Grid, limits: Limits, sampling: Sampling) -> Prepared:
    """Returns the job of a request whose inputs are in `files`. Opens no other files and no connections.

    sampling: includes the recipe chosen for the request. Raises one RequestError that names every file that cannot be
    read, or else every problem with their places on the timeline.
    """
    sources = await gather(_sources(request, files, limits))
    size = output_size(request.resolution, request.aspect_ratio, _first_size(sources))
    drawn = drawn_frames(request.number_of_frames, grid)
    spans = place([source.span for source in sources], request.number_of_frames, drawn, grid)
    check_tokens(latent_shape(pass_sizes(size, grid, sampling.recipe)[-1], drawn, grid), spans, limits.tokens)
    conditions = [
        await asyncio.to_thread(_read, source, span, size, limits, request.constant_rate_factor)
        for source, span in zip(sources, spans, strict=True)
    ]
    adapters = tuple(_adapters(request, files))
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
        adapters=adapters,
        sampling=_requested(sampling, request),
        passes=request.passes.to_two_passes() if request.passes else None,
    )
    hashes = {_dotted(source.span.loc): source.file.sha256 for source in sources}
    return Prepared(job, hashes | {_dotted(adapter.loc): adapter.sha256 for adapter in adapters})


def taken_frames(info: ClipInfo, video: VideoCondition) -> tuple[int, ...]:
    """Returns the numbers of the clip's frames that the video follows, in order."""
    frames: Sequence[int] = range(info.frames)
    if video.target_fps:
        count = max(1, round(info.seconds * video.target_fps))
        frames = [index * info.frames // count for index in range(count)]
    frames = frames[video.skip_frames :]
    count = video.max_num_frames or len(frames)
    frames = frames if video.from_end else frames[:count]
    return tuple(frames[::-1] if video.reverse else frames)[-count:]


def _requested(sampling: Sampling, request: Request) -> Sampling:
    """Returns the sampling with what the request sets itself."""
    if request.tone_map is not None:
        sampling = replace(sampling, tone_map=request.tone_map)
    return sampling if request.guidance_scale is None else replace(sampling, guidance_scale=request.guidance_scale)


def _sources(request: Request, files: Files, limits: Limits) -> Iterator[Coroutine[Any, Any, _Source]]:
    """Yields a measurement of each fetched picture and clip. Those of strength 0 are not fetched."""
    loc: Loc
    for index, image in enumerate(request.images):
        if file := files.get(loc := ("images", index, "image_url")):
            yield asyncio.to_thread(_image, image, file, loc, limits)
    for index, video in enumerate(request.videos):
        if file := files.get(loc := ("videos", index, "video_url")):
            yield asyncio.to_thread(_clip, video, file, loc, limits)


def _image(image: ImageCondition, file: InputFile, loc: Loc, limits: Limits) -> _Source:
    size = image_size(file.path, limits, loc)
    span = Span(loc[:-1], image.start_frame_number, 1, is_clip=False)
    return _Source(file, loc, size, span, image.strength, (image.focus_x, image.focus_y))


def _clip(video: VideoCondition, file: InputFile, loc: Loc, limits: Limits) -> _Source:
    info = clip_info(file.path, limits, loc)
    frames = taken_frames(info, video)
    span = Span(loc[:-1], video.start_frame_number, len(frames), is_clip=True)
    focus = (video.focus_x, video.focus_y)
    return _Source(file, loc, info.size, span, video.strength, focus, frames, video.from_end)


def _adapters(request: Request, files: Files) -> Iterator[AdapterFile]:
    loc: Loc
    for index, lora in enumerate(request.loras):
        if file := files.get(loc := ("loras", index, "path")):
            yield AdapterFile(file.path, file.name, file.sha256, lora.scale, loc)


def _first_size(sources: Sequence[_Source]) -> Size | None:
    """Returns the size of the earliest condition. If several start at that frame, the first picture counts."""
    return min(sources, key=lambda source: source.span.start).size if sources else None


def _read(source: _Source, span: Span, size: Size, limits: Limits, rate_factor: int) -> Condition:
    path, loc, focus = source.file.path, source.loc, source.focus
    if span.is_clip:
        pixels = read_clip(path, size, source.fitting(span.count), limits, loc, focus, rate_factor)
    else:
        pixels = read_image(path, size, limits, loc, focus, rate_factor)[None]
    return Condition(pixels, span.start, source.strength)


def _dotted(loc: Loc) -> str:
    return ".".join(map(str, loc))
