"""`keyreel doctor`: examines this machine and the models that run on it."""

import platform
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer
from av.codec import Codec
from av.codec.codec import UnknownCodecError
from huggingface_hub import constants
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from keyreel.checkpoints import memory as plans
from keyreel.checkpoints.catalogue import CATALOGUE, ModelCard, find_model, missing_size
from keyreel.checkpoints.checkpoint import Parameters, check_files, count_parameters
from keyreel.checkpoints.memory import LEAST, REFERENCE, ModelSize
from keyreel.cli.models import gib
from keyreel.engine.installed import INSTALL
from keyreel.errors import ModelError
from keyreel.worker.sandbox import Layers, probe

PACKAGES = ("torch", "diffusers", "transformers")
LARGE = 1_000_000_000
"""Models with more weights than this are meant for GPUs."""
NO_ENGINE = f"the engine is not installed: {INSTALL}"


@dataclass(frozen=True, slots=True)
class Device:
    """A device. memory, free: bytes. weight_size: bytes of one weight in the data type that Keyreel uses there."""

    name: str
    description: str
    memory: int
    free: int
    weight_size: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a model runs on this machine, and where or why not. plan: its memory plan for a 720p video."""

    model: str
    runs: bool
    reason: str
    plan: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The facts about this machine. versions: of the engine's packages, None if missing. disk_free: bytes."""

    python: str
    keyreel: str
    versions: dict[str, str | None]
    engine_problem: str | None
    devices: tuple[Device, ...]
    h264: str | None
    sandbox: Layers
    disk_free: int
    models: tuple[Verdict, ...]


def doctor(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Check this machine: the engine, its devices, the video encoder, the sandbox, and which models run here.

    Exits with status 1 if no model runs here.
    """
    report = examine()
    console = Console()
    if json:
        console.print_json(data=asdict(report))
    else:
        console.print(_facts(report), _verdicts(report.models))
    if not any(verdict.runs for verdict in report.models):
        raise typer.Exit(1)


def examine() -> Report:
    """Examines this machine."""
    versions = {package: _version(package) for package in PACKAGES}
    devices, problem = _devices() if all(versions.values()) else ((), NO_ENGINE)
    h264 = _h264()
    disk_free = _disk_free(Path(constants.HF_HUB_CACHE))
    obstacle = problem or (None if h264 else "PyAV has no H.264 encoder (libx264): pip install av")
    return Report(
        python=platform.python_version(),
        keyreel=version("keyreel"),
        versions=versions,
        engine_problem=problem,
        devices=devices,
        h264=h264,
        sandbox=probe(),
        disk_free=disk_free,
        models=tuple(
            Verdict(card.name, runs=False, reason=obstacle) if obstacle else judge(card, devices, disk_free)
            for card in CATALOGUE.values()
        ),
    )


def judge(card: ModelCard, devices: Sequence[Device], disk_free: int) -> Verdict:
    """Judges whether a model runs: whether its files are here or fit on the disk, and a device has room for it."""
    try:
        found = find_model(card.name)
        check_files(found)
        parameters = card.parameters or count_parameters(found)
    except ModelError as error:
        return Verdict(card.name, runs=False, reason=str(error))
    missing = missing_size(card, found)
    if disk_free < missing:
        reason = f"the download needs {gib(missing)}; only {gib(disk_free)} are free on the disk"
        return Verdict(card.name, runs=False, reason=reason)
    return place(card, parameters, devices, f"; {gib(missing)} to download first" if missing else "")


def place(card: ModelCard, parameters: Parameters, devices: Sequence[Device], suffix: str = "") -> Verdict:
    """Finds the first device with enough free memory for a 720p video of 89 frames, and the memory plan there."""
    for index, device in enumerate(devices):
        size = ModelSize(parameters, device.weight_size)
        if plan := plans.choose(size, REFERENCE, device.free):
            where = f"on {device.name}" if index == 0 else f"with --device {device.name}"
            reason = f"{where}: needs {gib(plans.needed(plan, size, REFERENCE))} of {gib(device.free)} free{suffix}"
            if device.name == "cpu" and parameters.total > LARGE:
                reason += "; takes hours per video: the model is meant for a GPU"
            return Verdict(card.name, runs=True, reason=reason, plan=plans.describe(plan, parameters))
    reasons = (
        f"{device.name} has {gib(device.free)} free, but the model needs at least "
        f"{gib(plans.needed(LEAST, ModelSize(parameters, device.weight_size), REFERENCE))}"
        for device in devices
    )
    return Verdict(card.name, runs=False, reason="; ".join(reasons))


def _devices() -> tuple[tuple[Device, ...], str | None]:
    """Returns the devices, fastest first, or a description of the engine's problem."""
    try:
        from keyreel.engine.devices import device_names

        return tuple(map(_device, device_names())), None
    except (ImportError, OSError, RuntimeError, ModelError) as error:
        return (), f"the engine does not start: {error}"


def _device(name: str) -> Device:
    import torch

    from keyreel.engine.devices import check_code, choose_dtype, memory

    handle = torch.device(name)
    check_code(handle)
    free, total = memory(handle)
    return Device(name, _description(name), total, free, choose_dtype(handle).itemsize)


def _description(name: str) -> str:
    import torch

    if name.startswith("cuda"):
        return torch.cuda.get_device_name(name)
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _h264() -> str | None:
    """Returns the name of PyAV's H.264 encoder, if it has one."""
    try:
        return str(Codec("libx264", "w").long_name)
    except UnknownCodecError:
        return None


def _disk_free(folder: Path) -> int:
    """Returns the free bytes on the disk of `folder`, which need not exist."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _facts(report: Report) -> Table:
    table = Table.grid("", "", padding=(0, 2))
    table.add_row("Keyreel", report.keyreel)
    table.add_row("Python", report.python)
    for package, found in report.versions.items():
        table.add_row(package, found or "not installed")
    if report.engine_problem:
        table.add_row("Engine", Text(report.engine_problem, "red"))
    for device in report.devices:
        table.add_row(device.name, Text(f"{device.description}, {gib(device.memory)}, {gib(device.free)} free"))
    table.add_row("H.264", report.h264 or Text("no encoder", "red"))
    table.add_row("Decoder", report.sandbox.describe())
    table.add_row("Disk", f"{gib(report.disk_free)} free for models")
    return table


def _verdicts(verdicts: Sequence[Verdict]) -> Table:
    table = Table(Column("Model", no_wrap=True), "Runs here", "Memory plan", "Why")
    for verdict in verdicts:
        runs = Text("yes", "green") if verdict.runs else Text("no", "red")
        table.add_row(verdict.model, runs, verdict.plan or "-", Text(verdict.reason))
    return table
