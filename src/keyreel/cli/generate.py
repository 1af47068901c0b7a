"""`keyreel generate`: generates one video."""

import json
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import typer
from rich.console import Console

from keyreel.cli.arguments import flag, parse_condition, parse_lora
from keyreel.cli.progress import event_bars
from keyreel.engine.installed import check_engine
from keyreel.errors import KeyreelError, RequestError
from keyreel.fal.schema import EXAMPLE_PROMPTS, Output, Request, ignored_fields, parse_request
from keyreel.local import Done, stream
from keyreel.media.sheet import contact_sheet
from keyreel.video.canvas import AspectRatio, Resolution
from keyreel.video.recipes import RecipeChoice

REFUSED = 2
INTERRUPTED = 130
CONDITION_FORM = "PATH_OR_URL[@FRAME[:STRENGTH]]"
LORA_FORM = "PATH_URL_OR_REPOSITORY[#WEIGHT_NAME][@SCALE]"
EPILOG = "Prompts that the demo model understands:\n\n" + "\n\n".join(EXAMPLE_PROMPTS)

Strings = list[str] | None
Flag = bool | None


def generate(
    context: typer.Context,
    prompt: Annotated[str | None, typer.Argument(help="What the video shows.", show_default=False)] = None,
    request: Annotated[
        Path | None, typer.Option(help="JSON file with the endpoint's input. Flags override it.", show_default=False)
    ] = None,
    image: Annotated[Strings, flag("images", CONDITION_FORM)] = None,
    video: Annotated[Strings, flag("videos", CONDITION_FORM)] = None,
    lora: Annotated[Strings, flag("loras", LORA_FORM)] = None,
    negative_prompt: Annotated[str | None, flag("negative_prompt")] = None,
    resolution: Annotated[Resolution | None, flag("resolution")] = None,
    aspect_ratio: Annotated[AspectRatio | None, flag("aspect_ratio")] = None,
    number_of_frames: Annotated[int | None, flag("number_of_frames")] = None,
    number_of_steps: Annotated[int | None, flag("number_of_steps")] = None,
    frame_rate: Annotated[int | None, flag("frame_rate")] = None,
    seed: Annotated[int | None, flag("seed")] = None,
    expand_prompt: Annotated[Flag, flag("expand_prompt")] = None,
    reverse_video: Annotated[Flag, flag("reverse_video")] = None,
    enable_safety_checker: Annotated[Flag, flag("enable_safety_checker")] = None,
    recipe: Annotated[RecipeChoice | None, flag("recipe")] = None,
    model: Annotated[str, typer.Option(help="Model: name, folder, .safetensors file or hub repository.")] = "demo",
    device: Annotated[
        str | None, typer.Option(help="Device: cuda, cuda:1, mps or cpu. Default: the fastest.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The MP4 to write. Default: keyreel-SEED.mp4.", show_default=False)
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Also write a contact sheet of frames (PNG).", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the endpoint's output as JSON.")] = False,
) -> None:
    """Generate a video.

    A field that takes a URL also takes a path. Paths in a request file are relative to its folder.
    """
    flags = {name: value for name in Request.model_fields if (value := context.params.get(name)) is not None}
    lists = {
        "images": [parse_condition(value, "image_url") for value in image or ()],
        "videos": [parse_condition(value, "video_url") for value in video or ()],
        "loras": [parse_lora(value) for value in lora or ()],
    }
    console = Console(stderr=True)
    try:
        check_engine()
        fields = _read(request) | flags | {name: items for name, items in lists.items() if items}
        output = _make(fields, model, device, out, request.parent if request else Path(), console)
        if sheet:
            sheet.parent.mkdir(parents=True, exist_ok=True)
            contact_sheet(_path(output), sheet)
    except KeyreelError as error:
        _print_error(error)
        raise typer.Exit(REFUSED) from None
    except OSError as error:
        typer.echo(f"keyreel: {error.filename or 'The file'} cannot be written: {error.strerror}.", err=True)
        raise typer.Exit(REFUSED) from None
    _report(output, sheet, as_json)


def _read(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError.at((), f"Cannot read the request {path}: {error}", "json_invalid") from None
    if not isinstance(fields, dict):
        raise RequestError.at((), f"The request {path} must be a JSON object.", "model_type")
    return fields


def _make(
    fields: dict[str, Any], model: str, device: str | None, out: Path | None, base: Path, console: Console
) -> Output:
    request = parse_request(fields)
    for message in ignored_fields(Request, fields):
        console.print(message, markup=False)
    console.print(f"Making a video of {request.number_of_frames} frames in {request.resolution} with {model}.")
    events = stream(request, model=model, device=device, out=out, base=base)
    with _interruptible() as stop, closing(events), event_bars(console) as bars:
        for event in events:
            bars.show(event)
            if isinstance(event, Done):
                return event.output
            if stop:
                break
    console.print("Interrupted; nothing was written.")
    raise typer.Exit(INTERRUPTED)


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Yields a list that the first Ctrl-C fills, to stop between two events. The second acts as usual."""
    received: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield received
    finally:
        signal.signal(signal.SIGINT, before)


def _print_error(error: KeyreelError) -> None:
    problems = error.problems if isinstance(error, RequestError) else (error,)
    for problem in problems:
        typer.echo(f"keyreel: {problem}", err=True)


def _report(output: Output, sheet: Path | None, as_json: bool) -> None:
    if as_json:
        typer.echo(output.model_dump_json(indent=2))
        return
    typer.echo(f"Video: {_path(output)} (seed {output.seed})")
    if sheet:
        typer.echo(f"Contact sheet: {sheet.absolute()}")


def _path(output: Output) -> Path:
    return Path(url2pathname(urlsplit(output.video.url).path))
