"""What the files in deploy/ name: settings, commands, ports, metrics."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import typer
import typer.main
import yaml
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from prometheus_client.metrics import MetricWrapperBase

from keyreel import metrics
from keyreel.cli import app
from keyreel.server.app import create_app, create_worker_app
from keyreel.server.dependencies import Services
from keyreel.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
EVERYWHERE = "0.0.0.0"  # noqa: S104
SETTING = re.compile(r"\bKEYREEL_[A-Z0-9_]+\b")
METRIC = re.compile(r"\bkeyreel_[a-z0-9_]+\b")
SETTINGS = {f"KEYREEL_{name.upper()}" for name in Settings.model_fields}
HISTOGRAM_PARTS = ("_bucket", "_sum", "_count")


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def command_values(arguments: Sequence[str]) -> dict[str, Any]:
    """Parses the arguments of `keyreel` and returns their values. Raises click's UsageError if they are wrong."""
    command: Any = typer.main.get_command(app)
    context, rest = typer.Context(command, info_name="keyreel"), list(arguments)
    while hasattr(command, "commands"):
        _, command, rest = command.resolve_command(context, rest)
        context = typer.Context(command, parent=context, info_name=command.name)
    values: dict[str, Any] = command.make_context(command.name, rest).params
    return values


def paths(application: FastAPI) -> set[str]:
    return {str(context.path) for context in iter_route_contexts(application.routes)}


def gateway_paths() -> set[str]:
    return paths(create_app(cast("Services", None)))


def worker_paths() -> set[str]:
    return paths(create_worker_app(cast("Services", None), ()))


def metric_labels() -> dict[str, set[str]]:
    """Returns the labels of each metric, by every name under which Prometheus knows it."""
    found = {}
    for metric in vars(metrics).values():
        if not isinstance(metric, MetricWrapperBase):
            continue
        (family,) = metric.collect()
        endings = {"counter": ("_total",), "histogram": HISTOGRAM_PARTS}.get(family.type, ("",))
        for ending in endings:
            labels = {*metric._labelnames, "job", "instance"}
            found[family.name + ending] = labels | ({"le"} if ending == "_bucket" else set())
    return found


def walk(value: Any) -> Iterator[dict[str, Any]]:
    """Yields every mapping in a document."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from walk(item)
