"""Runs one request in this process, from start to end: `keyreel.generate` and `keyreel.stream`, also as coroutines."""

import asyncio
import os
import warnings
from collections.abc import AsyncGenerator, Coroutine, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from keyreel.checkpoints import catalogue
from keyreel.checkpoints.auxiliary import expected_capabilities
from keyreel.engine.installed import check_engine
from keyreel.errors import Loc
from keyreel.fal.schema import File, Output, Request, ignored_fields, parse_request, with_published_steps
from keyreel.guard import Guard, condition_locs
from keyreel.inputs.decode import decode
from keyreel.inputs.fetch import Fetcher
from keyreel.inputs.loras import hub_api
from keyreel.inputs.sources import fetch_inputs
from keyreel.media.atomic import replacing
from keyreel.media.limits import Limits
from keyreel.media.mp4 import Mp4Writer
from keyreel.media.samples import sample_frames
from keyreel.net.addresses import AddressPolicy
from keyreel.safety.c2pa import open_marker
from keyreel.safety.chat import ChatServer, ask, find_expander
from keyreel.safety.expansion import LocalModel, not_configured
from keyreel.safety.moderation import UNCHECKED
from keyreel.safety.plan import GuardPlan
from keyreel.safety.provenance import metadata
from keyreel.settings import Settings
from keyreel.video import events
from keyreel.video.events import Frames, Notice, Stage
from keyreel.video.job import InputFile, Prepared
from keyreel.video.recipes import Capabilities, choose_recipe

if TYPE_CHECKING:
    from keyreel.engine.models import Model
    from keyreel.video.canvas import Grid

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Done:
    """The video is written. The last event of a stream."""

    output: Output


Event = events.Event | Done

_guards: "WeakKeyDictionary[Model, Guard]" = WeakKeyDictionary()
"""The last guard of each loaded model, so that it is loaded once for several videos."""


def generate(
    request: Request | Mapping[str, Any] | None = None,
    *,
    model: "str | Model" = "demo",
    device: str | None = None,
    out: Path | str | None = None,
    base: Path | str = ".",
    **fields: Any,
) -> Output:
    """Generates a video and returns the endpoint's output. `video.url` is the file's `file://` URL.

    request: the endpoint's input; its fields can also be keywords. See `stream` for the other parameters and errors.
    """
    for event in stream(request, model=model, device=device, out=out, base=base, **fields):
        if isinstance(event, Done):
            return event.output
    raise AssertionError("a stream ends with Done or raises")


def stream(
    request: Request | Mapping[str, Any] | None = None,
    *,
    model: "str | Model" = "demo",
    device: str | None = None,
    out: Path | str | None = None,
    base: Path | str = ".",
    **fields: Any,
) -> Generator[Event]:
    """Generates a video and yields events, Done last. Closing the iterator stops the generation and leaves no file.

    model: a name, folder, file or hub repository, or a model loaded with `keyreel.load_model` (for several videos).
    out: the MP4 to write, by default `keyreel-<seed>.mp4`. base: the folder to which paths in the request are relative.
    Fields that do not exist are ignored with a warning.
    Raises RequestError for an invalid request and ModelError for a model that cannot run here.
    """
    check_engine()
    parsed = request if isinstance(request, Request) else _parse({**(request or {}), **fields})
    settings = Settings()
    expander = find_expander(settings, model if isinstance(model, str) else model.name)
    if parsed.expand_prompt and expander is None:
        raise not_configured()
    marker = open_marker(settings)
    yield Stage("inputs")
    grid, capabilities = _model_facts(model, settings)
    recipe = choose_recipe(parsed.recipe, capabilities, settings.recipe)
    parsed = with_published_steps(parsed, settings.recipe, capabilities.published)
    limits = Limits.from_settings(settings)
    files = _wait_for(_fetch(parsed, Path(base), limits, settings))
    prepared = _wait_for(decode(parsed, files, grid, limits, settings.sampling(recipe, capabilities.published)))
    guard = _guard(GuardPlan.from_settings(settings, expander, _video_device(model, device)), model)
    plan = guard.plan.needed_for(parsed)
    if parsed.enable_safety_checker and not plan.pictures:
        yield Notice(UNCHECKED)
    if parsed.expand_prompt and expander:
        yield Stage("expand")
        prepared = _expanded(prepared, expander, guard)
    if plan.checks:
        yield Stage("check")
        _check_inputs(parsed, prepared, guard)
    yield Stage("model")
    loaded = load_model(model, device) if isinstance(model, str) else model
    target = Path(out or f"keyreel-{prepared.job.seed}.mp4").absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    facts = metadata(parsed, prepared, loaded)
    with replacing(target) as video:
        yield from _write(video, prepared, loaded, facts)
        if plan.pictures:
            yield Stage("check")
            guard.check_video(sample_frames(video, plan.frames))
        if marker:
            marker.mark(video, facts)
    yield Done(_output(prepared, target))


async def generate_async(request: Request | Mapping[str, Any] | None = None, **options: Any) -> Output:
    """Generates a video as `generate` does, beside the event loop. A cancel stops it at the next step."""
    async with aclosing(stream_async(request, **options)) as stream_of_events:
        async for event in stream_of_events:
            if isinstance(event, Done):
                return event.output
    raise AssertionError("a stream ends with Done or raises")


async def stream_async(request: Request | Mapping[str, Any] | None = None, **options: Any) -> AsyncGenerator[Event]:
    """Yields the events of `stream`, which runs beside the event loop. `contextlib.aclosing` stops it early."""
    loop = asyncio.get_running_loop()
    running = stream(request, **options)
    # One thread, so that the stream is closed after the step in which a cancel came.
    with ThreadPoolExecutor(1) as thread:
        try:
            while event := await loop.run_in_executor(thread, next, running, None):
                yield event
        finally:
            await asyncio.shield(loop.run_in_executor(thread, running.close))


def _parse(fields: Mapping[str, Any]) -> Request:
    fields = _with_text_paths(fields)
    parsed = parse_request(fields)
    for message in ignored_fields(Request, fields):
        warnings.warn(message, stacklevel=3)
    return parsed


def _with_text_paths(value: Any) -> Any:
    """Returns the value with every `pathlib.Path` in it as text."""
    match value:
        case Mapping():
            return {name: _with_text_paths(item) for name, item in value.items()}
        case list() | tuple():
            return [_with_text_paths(item) for item in value]
        case os.PathLike():
            return os.fspath(value)
    return value


def _wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Returns the result of a coroutine, also in a program that already runs an event loop, such as a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def _model_facts(model: "str | Model", settings: Settings) -> "tuple[Grid, Capabilities]":
    if not isinstance(model, str):
        return model.grid, model.capabilities
    found = catalogue.find_model(model)
    return found.grid, expected_capabilities(found, settings.recipe_settings)


def load_model(name: str = "demo", device: str | None = None) -> "Model":
    """Loads a model, to generate several videos with it (`generate(..., model=...)`). Raises ModelError."""
    check_engine()
    # Importing the engine, and with it torch, takes time: an invalid request must fail before that.
    from keyreel.engine.devices import choose_device
    from keyreel.engine.models import load_model as load

    settings = Settings()
    return load(name, str(choose_device(device)), settings.cache_dir, settings.recipe_settings)


def _video_device(model: "str | Model", device: str | None) -> str:
    if not isinstance(model, str):
        return str(model.device)
    from keyreel.engine.devices import choose_device

    return str(choose_device(device))


async def _fetch(request: Request, base: Path, limits: Limits, settings: Settings) -> dict[Loc, InputFile]:
    # The caller acts with their own rights: any address and any file is allowed.
    async with Fetcher(
        settings.cache_dir / "inputs", AddressPolicy.everything(), settings.fetch_timeout, local_base=base
    ) as fetcher:
        return await fetch_inputs(request, fetcher, limits, hub_api(own_token=True))


def _guard(plan: GuardPlan, model: "str | Model") -> Guard:
    if isinstance(model, str):
        return Guard(plan)
    guard = _guards.get(model)
    if guard is None or guard.plan != plan:
        guard = _guards[model] = Guard(plan)
    return guard


def _expanded(prepared: Prepared, expander: ChatServer | LocalModel, guard: Guard) -> Prepared:
    job = prepared.job
    picture = job.conditions[0].pixels[0] if job.conditions else None
    if isinstance(expander, ChatServer):
        prompt = _wait_for(ask(expander, job.prompt, job.seed, picture))
    else:
        prompt = guard.expand(job.prompt, job.seed, picture)
    return replace(prepared, job=replace(job, prompt=prompt))


def _check_inputs(request: Request, prepared: Prepared, guard: Guard) -> None:
    guard.check_prompts(list(dict.fromkeys((request.prompt, prepared.job.prompt))))
    places = condition_locs(prepared.inputs)
    pixels = (condition.pixels for condition in prepared.job.conditions)
    guard.check_conditions(dict(zip(places, pixels, strict=True)))


def _write(video: Path, prepared: Prepared, model: "Model", facts: Mapping[str, str]) -> Iterator[Event]:
    from keyreel.engine.fitting import run

    job = prepared.job
    with Mp4Writer(video, job.size, job.frame_rate, facts) as writer:
        for event in run(model, job):
            if isinstance(event, Frames):
                writer.write(event.pixels)
            yield event


def _output(prepared: Prepared, target: Path) -> Output:
    video = File(
        url=target.as_uri(),
        content_type="video/mp4",
        file_name=target.name,
        file_size=target.stat().st_size,
    )
    return Output(prompt=prepared.job.prompt, seed=prepared.job.seed, video=video)
