"""One request from start to end, in this process: `keyreel.generate` and `keyreel.stream`."""

import asyncio
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keyreel import catalogue
from keyreel.companions import expected_abilities
from keyreel.errors import ModelError
from keyreel.events import Done, Event, Frames, Notice, Stage
from keyreel.expansion import ChatServer, LocalModel, ask, find_expander, not_configured
from keyreel.fetch import AddressPolicy, Fetcher
from keyreel.guard import Guard, GuardPlan, condition_places
from keyreel.marking import open_marker
from keyreel.media.atomic import replacing
from keyreel.media.mp4 import Mp4Writer
from keyreel.media.samples import sample_frames
from keyreel.moderation import UNCHECKED
from keyreel.prepare import Prepared, prepare
from keyreel.provenance import metadata
from keyreel.recipes import Abilities, RecipeName, choose_recipe
from keyreel.schema import File, Output, Request, parse_request
from keyreel.settings import Settings

if TYPE_CHECKING:
    from keyreel.canvas import Grid
    from keyreel.engine.models import Model


def generate(
    request: Request | Mapping[str, Any] | None = None,
    *,
    model: "str | Model" = "demo",
    device: str | None = None,
    out: Path | str | None = None,
    base: Path | str = ".",
    **fields: Any,
) -> Output:
    """Makes a video and returns the endpoint's output; `video.url` is the file's `file://` URL.

    The request is an object of the endpoint's input, or its fields as keywords. See `stream` for the rest.
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
    """Makes a video and yields what happens; the last event is Done. Closing the iterator stops it and leaves no file.

    model: a name, folder, file or hub repository, or a model loaded with `keyreel.load_model` (to make several videos).
    out: the MP4 to write; `keyreel-<seed>.mp4` by default. base: where relative paths in the request start.
    Raises RequestError for a request that cannot be met, ModelError for a model that cannot run here.
    """
    given = request if isinstance(request, Request) else parse_request({**(request or {}), **fields})
    settings = Settings()
    expander = find_expander(settings, model if isinstance(model, str) else model.name)
    if given.expand_prompt and expander is None:
        raise not_configured()
    marker = open_marker(settings)
    yield Stage("inputs")
    grid, abilities = _facts(model, settings)
    recipe = choose_recipe(given.recipe, abilities, settings.recipe)
    prepared = asyncio.run(_prepare(given, grid, Path(base), settings, recipe))
    plan = GuardPlan.of(settings, expander, _video_device(model, device)).needed_for(given)
    if given.enable_safety_checker and not plan.pictures:
        yield Notice(UNCHECKED)
    guard = Guard.load(plan)
    if given.expand_prompt and expander:
        yield Stage("expand")
        prepared = _expanded(prepared, expander, guard)
    if plan.checks:
        yield Stage("check")
        _check_inputs(given, prepared, guard)
    yield Stage("model")
    loaded = load_model(model, device) if isinstance(model, str) else model
    target = Path(out or f"keyreel-{prepared.job.seed}.mp4").absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    facts = metadata(given, prepared, loaded)
    with replacing(target) as video:
        yield from _write(video, prepared, loaded, facts)
        if plan.pictures:
            yield Stage("check")
            guard.check_video(sample_frames(video, plan.frames))
        if marker:
            marker.mark(video, facts)
    yield Done(_output(prepared, target))


def _facts(model: "str | Model", settings: Settings) -> "tuple[Grid, Abilities]":
    if not isinstance(model, str):
        return model.grid, model.abilities
    found = catalogue.find_model(model)
    return found.grid, expected_abilities(found, settings.wishes)


def load_model(name: str = "demo", device: str | None = None) -> "Model":
    """Loads a model once, to make several videos with it (`generate(..., model=...)`). Raises ModelError."""
    # The engine, and with it torch, is imported only now: a wrong request is answered before that takes its time.
    try:
        from keyreel.engine.models import load_model as load
    except ModuleNotFoundError as error:
        raise _not_installed(error) from None
    settings = Settings()
    return load(name, device, settings.cache_dir, settings.wishes)


def _video_device(model: "str | Model", device: str | None) -> str:
    if not isinstance(model, str):
        return str(model.device)
    try:
        from keyreel.engine.devices import choose_device
    except ModuleNotFoundError as error:
        raise _not_installed(error) from None
    return str(choose_device(device))


def _not_installed(error: ModuleNotFoundError) -> ModelError:
    return ModelError(f"The engine is not installed ({error.name} is missing): pip install 'keyreel[engine]'")


async def _prepare(request: Request, grid: "Grid", base: Path, settings: Settings, recipe: RecipeName) -> Prepared:
    # The user asks for himself here, with his own rights: any address and any file is his to name.
    async with Fetcher(
        settings.cache_dir / "inputs", AddressPolicy.everything(), settings.fetch_timeout, local_base=base
    ) as fetcher:
        return await prepare(request, grid, fetcher, settings, recipe)


def _expanded(prepared: Prepared, expander: ChatServer | LocalModel, guard: Guard) -> Prepared:
    job = prepared.job
    picture = job.conditions[0].pixels[0] if job.conditions else None
    if isinstance(expander, ChatServer):
        prompt = asyncio.run(ask(expander, job.prompt, job.seed, picture))
    else:
        prompt = guard.expand(job.prompt, job.seed, picture)
    return replace(prepared, job=replace(job, prompt=prompt))


def _check_inputs(request: Request, prepared: Prepared, guard: Guard) -> None:
    guard.check_prompts(list(dict.fromkeys((request.prompt, prepared.job.prompt))))
    places = condition_places(prepared.inputs)
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
