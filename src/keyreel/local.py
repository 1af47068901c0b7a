"""One request from start to end, in this process: `keyreel.generate` and `keyreel.stream`."""

import asyncio
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keyreel import catalogue
from keyreel.errors import ModelError
from keyreel.events import Done, Event, Frames, Notice, Stage
from keyreel.fetch import AddressPolicy, Fetcher
from keyreel.media.mp4 import Mp4Writer
from keyreel.prepare import Prepared, prepare
from keyreel.provenance import metadata
from keyreel.schema import File, Output, Request, parse_request
from keyreel.settings import Settings

if TYPE_CHECKING:
    from keyreel.canvas import Grid
    from keyreel.engine.models import Model

NO_CHECKER = "No safety checker is configured: the video is not checked."


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
    if given.enable_safety_checker:
        yield Notice(NO_CHECKER)
    yield Stage("inputs")
    prepared = asyncio.run(_prepare(given, _grid(model), Path(base), settings))
    yield Stage("model")
    loaded = load_model(model, device) if isinstance(model, str) else model
    target = Path(out or f"keyreel-{prepared.job.seed}.mp4").absolute()
    yield from _write(given, prepared, loaded, target)


def _grid(model: "str | Model") -> "Grid":
    return catalogue.find_model(model).grid if isinstance(model, str) else model.grid


def load_model(name: str = "demo", device: str | None = None) -> "Model":
    """Loads a model once, to make several videos with it (`generate(..., model=...)`). Raises ModelError."""
    # The engine, and with it torch, is imported only now: a wrong request is answered before that takes its time.
    try:
        from keyreel.engine.models import load_model as load
    except ModuleNotFoundError as error:
        raise ModelError(
            f"The engine is not installed ({error.name} is missing): pip install 'keyreel[engine]'"
        ) from None
    return load(name, device, Settings().cache_dir)


async def _prepare(request: Request, grid: "Grid", base: Path, settings: Settings) -> Prepared:
    # The user asks for himself here, with his own rights: any address and any file is his to name.
    async with Fetcher(
        settings.cache_dir / "inputs", AddressPolicy.everything(), settings.fetch_timeout, local_base=base
    ) as fetcher:
        return await prepare(request, grid, fetcher, settings)


def _write(request: Request, prepared: Prepared, model: "Model", target: Path) -> Iterator[Event]:
    from keyreel.engine.pipeline import run

    job = prepared.job
    target.parent.mkdir(parents=True, exist_ok=True)
    with Mp4Writer(target, job.size, job.frame_rate, metadata(request, prepared, model)) as writer:
        for event in run(model, job):
            if isinstance(event, Frames):
                writer.write(event.pixels)
            yield event
    video = File(
        url=target.as_uri(),
        content_type="video/mp4",
        file_name=target.name,
        file_size=target.stat().st_size,
    )
    yield Done(Output(prompt=job.prompt, seed=job.seed, video=video))
