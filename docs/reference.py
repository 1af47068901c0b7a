"""Writes docs/reference/ from the code: `make docs`, or `python -m docs.reference`.

tests/test_docs_reference.py fails while a page on disk differs from what this module makes.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import getdoc
from pathlib import Path
from typing import Any, cast, get_args

import typer
import typer.main
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import RouteContext, iter_route_contexts
from prometheus_client.metrics import MetricWrapperBase
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from docs.markdown import aliases, bounds, number, table, type_of
from keyreel import metrics
from keyreel.cli import app as cli
from keyreel.errors import RequestError
from keyreel.fal.endpoints import ENDPOINTS
from keyreel.fal.error_types import MODEL_ERRORS, PLAIN_ERRORS, PLATFORM_ERRORS, ErrorType
from keyreel.fal.hosts import PREFIXES
from keyreel.fal.outcomes import CANCELLED, Failure, request_failure, status_and_body
from keyreel.fal.schema import File
from keyreel.server.app import create_app
from keyreel.server.dependencies import Needs, Services, needs_any_key
from keyreel.server.errors import failure_response
from keyreel.server.proxy import HEADER as PROXY_HEADER
from keyreel.server.proxy import PATH as PROXY_PATH
from keyreel.server.routes.storage import signed_upload, uploader
from keyreel.settings import Settings
from keyreel.store.scopes import Scope

FOLDER = Path(__file__).parent / "reference"
HEAD = "<!-- Written by `make docs` from {source}. Change it there. -->\n\n# {title}\n\n{text}"
PYDANTIC = "https://docs.pydantic.dev/latest/errors/validation_errors/"
SETTING_GROUPS = {
    "cache_dir": "Cache",
    "data_dir": "Server",
    "recipe": "Sampling",
    "expander_url": "Prompts, safety and provenance",
    "upsampler": "Weights for recipes",
    "max_tokens": "Limits",
}
"""The first setting of each group, and the group's heading."""
SIZES = {"GiB": 1024**3, "MiB": 1024**2}
TIMES = {"days": 86_400, "hours": 3600, "minutes": 60}
UNITS = {"_bytes": SIZES, "retention": TIMES, "_lifetime": TIMES, "_timeout": TIMES, "_seconds": TIMES}
"""How a setting's name ends, and the units in which its default is easier to read."""
CALLERS: dict[Any, str] = {
    **{Needs(scope): f"`{scope}`" for scope in Scope},
    needs_any_key: "any key",
    uploader: "`upload`, or upload token",
    signed_upload: "signed URL",
}
"""Dependencies of routes, and whom they admit. The first that a route has counts."""
OPTIONAL_PATH = "/{path:path}"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """Returns the text of every page by its file name."""
    return {
        "settings.md": settings_page(),
        "cli.md": cli_page(),
        "request.md": request_page(),
        "errors.md": errors_page(),
        "metrics.md": metrics_page(),
        "http.md": http_page(),
    }


def page(title: str, source: str, *parts: str) -> str:
    return HEAD.format(source=source, title=title, text="\n\n".join(filter(None, parts))) + "\n"


# Settings


def settings_page() -> str:
    fields = Settings.model_fields
    if unknown := SETTING_GROUPS.keys() - fields.keys():
        raise ValueError(f"SETTING_GROUPS names no setting: {', '.join(sorted(unknown))}")
    groups: dict[str, list[Sequence[str]]] = {}
    heading = SETTING_GROUPS[next(iter(fields))]
    for name, field in fields.items():
        heading = SETTING_GROUPS.get(name, heading)
        groups.setdefault(heading, []).append(setting_row(name, field))
    return page(
        "Settings",
        "src/keyreel/settings.py",
        "`keyreel serve`, `keyreel generate` and the Python functions read their settings from environment variables. "
        "An option of a command overrides its setting.",
        *(
            f"## {heading}\n\n{table(('variable', 'type', 'default', 'bounds', 'description'), rows)}"
            for heading, rows in groups.items()
        ),
    )


def setting_row(name: str, field: FieldInfo) -> Sequence[str]:
    variable = f"`{Settings.model_config['env_prefix']}{name.upper()}`"
    return (
        variable,
        type_of(field.annotation),
        setting_default(name, field.default),
        bounds(field),
        field.description or "",
    )


def setting_default(name: str, value: Any) -> str:
    match value:
        case None:
            return "not set"
        case "":
            return "empty"
        case bool():
            return f"`{str(value).lower()}`"
        case Path():
            return f"`~/{value.relative_to(Path.home()).as_posix()}`"
        case int() | float():
            units = next((UNITS[ending] for ending in UNITS if name.endswith(ending)), {})
            return f"`{number(value)}`{readable(value, units)}"
    return f"`{value}`"


def readable(value: float, units: Mapping[str, int]) -> str:
    """Returns ` (128 MiB)` for 134217728, or nothing when no unit divides the value."""
    for unit, size in units.items():
        if value % size == 0:
            count = number(value / size)
            return f" ({count} {unit.removesuffix('s') if count == '1' else unit})"
    return ""


# Requests


def request_page() -> str:
    nested = dict.fromkeys(model for endpoint in ENDPOINTS.values() for model in models_in(endpoint.input))
    outputs = dict.fromkeys(endpoint.application.output for endpoint in ENDPOINTS.values())
    return page(
        "Requests",
        "src/keyreel/fal/",
        "The JSON input of every endpoint, and its output. Unknown fields are ignored; the request's log names them. "
        "[requests.md](../requests.md) explains the fields.",
        *endpoint_sections(),
        "## Types of fields",
        *(f"{model_heading(model)}\n\n{fields_table(model)}" for model in nested),
        "## Outputs",
        *(f"{model_heading(model)}\n\n{fields_table(model, defaults=False)}" for model in (*outputs, File)),
    )


def endpoint_sections() -> Iterator[str]:
    """Yields a section for each endpoint. Those with the same input share its table."""
    first: dict[type[BaseModel], str] = {}
    for endpoint in ENDPOINTS.values():
        heading = f"## {endpoint.id}\n\n{endpoint.summary}"
        if same := first.get(endpoint.input):
            yield f"{heading} The fields are those of [{same}](#{same.replace('/', '')})."
        else:
            first[endpoint.input] = endpoint.id
            yield f"{heading}\n\n{fields_table(endpoint.input)}"


def models_in(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Yields the models that the fields of a model use."""
    for field in model.model_fields.values():
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield part
                yield from models_in(part)


def model_heading(model: type[BaseModel]) -> str:
    return f"### {model.__name__}\n\n{getdoc(model)}"


def fields_table(model: type[BaseModel], *, defaults: bool = True) -> str:
    rows = [
        (
            f"`{name}`",
            type_of(field.annotation),
            default_of(field) if defaults else "",
            bounds(field),
            ", ".join(f"`{alias}`" for alias in aliases(name, field)),
            field.description or "",
        )
        for name, field in model.model_fields.items()
    ]
    return table(("field", "type", "default", "bounds", "also read as", "description"), rows)


def default_of(field: FieldInfo) -> str:
    return "required" if field.is_required() else f"`{json.dumps(field.default)}`"


# Errors


def errors_page() -> str:
    return page(
        "Errors",
        "src/keyreel/fal/error_types.py",
        "Errors come in three forms. The same status and body come from reading the result, from a "
        "synchronous run and, as `payload`, in a webhook. The header `X-Fal-Error-Type` repeats the type; "
        "`X-Fal-Retryable` tells fal's clients whether to send the same request again.",
        "## Model errors",
        "The request cannot be met. `detail` is a list with one entry per problem: `loc` is the place in the input, "
        "`msg` a sentence, `type` one of these, and `ctx` holds figures.",
        example(
            request_failure(RequestError.at(("images", 0, "image_url"), "The file is empty.", "file_download_error"))
        ),
        raised(MODEL_ERRORS, detail=[]),
        f"Fields of the wrong type or out of bounds have [pydantic's types]({PYDANTIC}), such as `missing`, "
        "`int_parsing`, `literal_error` and `greater_than_equal`, also with status 422. The queue accepts a wrong "
        "request and finds these errors when it runs; a synchronous run answers at once.",
        "## Platform errors",
        "The service did not run the request, or not to its end. `detail` is a sentence.",
        example(CANCELLED),
        raised(PLATFORM_ERRORS),
        "## Errors without a type",
        'The body is `{"detail": "..."}`. An unknown request answers `{"status": "NOT_FOUND"}`.',
        table(
            ("status", "cause", "what to do"),
            ((str(status), error.cause, error.remedy) for status, error in PLAIN_ERRORS.items()),
        ),
        "## Types that Keyreel does not send",
        "Programs for fal may handle these. Keyreel knows their status codes and never sends them.",
        table(
            ("type", "status", "meaning at fal"),
            (
                (f"`{name}`", str(error.status), error.cause)
                for name, error in {**MODEL_ERRORS, **PLATFORM_ERRORS}.items()
                if not error.raised
            ),
        ),
    )


def example(failure: Failure) -> str:
    return f"```json\n{json.dumps(status_and_body(failure)[1])}\n```"


def raised(errors: Mapping[str, ErrorType], detail: Any = None) -> str:
    """Returns a table of the types that Keyreel sends. detail: as in the failures that have these types."""
    answers = {name: failure_response(Failure("", name, detail), {}) for name in errors}
    return table(
        ("type", "status", "retryable", "cause", "what to do"),
        (
            (
                f"`{name}`",
                str(answers[name].status_code),
                "yes" if answers[name].headers["X-Fal-Retryable"] == "true" else "",
                error.cause,
                error.remedy,
            )
            for name, error in errors.items()
            if error.raised
        ),
    )


# Metrics


def metrics_page() -> str:
    found = [metric for metric in vars(metrics).values() if isinstance(metric, MetricWrapperBase)]
    return page(
        "Metrics",
        "src/keyreel/metrics.py",
        "Prometheus reads these at `/metrics`. A histogram appears as `_bucket`, `_sum` and `_count`. Prometheus's "
        "Python client adds figures of the process: `process_*` and `python_*`.",
        table(("name", "kind", "labels", "description"), map(metric_row, found)),
    )


def metric_row(metric: MetricWrapperBase) -> Sequence[str]:
    (family,) = metric.collect()
    name = f"{family.name}_total" if family.type == "counter" else family.name
    return f"`{name}`", family.type, ", ".join(f"`{label}`" for label in metric._labelnames), family.documentation


# Command line


def cli_page() -> str:
    command = typer.main.get_command(cli)
    return page(
        "Command line",
        "src/keyreel/cli/",
        "Every command has `--help`, and reads the [settings](settings.md).",
        *command_parts(command, typer.Context(command, info_name="keyreel")),
    )


def command_parts(command: Any, context: typer.Context) -> Iterator[str]:
    """Yields the sections of a command and of those below it."""
    yield f"## {context.command_path}\n\n{command.help}"
    yield f"```console\n$ {context.command_path} {' '.join(command.collect_usage_pieces(context))}\n```"
    records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    rows = [(f"`{name}`", text) for name, text in filter(None, records) if name != "--help"]
    yield table(("argument or option", "description"), rows) if rows else ""
    if command.epilog:
        first, *others = command.epilog.split("\n\n")
        yield "\n".join([first, "", *(f"- {other}" for other in others)])
    for name in getattr(command, "commands", ()):
        _, child, _ = command.resolve_command(context, [name])
        yield from command_parts(child, typer.Context(child, parent=context, info_name=name))


# Routes


@dataclass
class Route:
    """A path, with the optional part in brackets, and the methods that one function answers there."""

    section: str
    path: str
    methods: set[str]
    callers: str
    summary: str


def http_page() -> str:
    app = create_app(cast("Services", None))
    sections: dict[str, list[Route]] = {"Queue": [], "Run": []}
    for route in distinct_routes(app):
        sections.setdefault(route.section, []).append(route)
    return page(
        "HTTP",
        "src/keyreel/server/routes/",
        "`{owner}/{alias}` is an application, such as `fal-ai/ltx-video-lora`, and `{path}` the rest of an endpoint's "
        "id, such as `multiconditioning`. Every path below `/queue` also works without `/queue`. GET takes the input "
        "of a request from the query, POST from the body.",
        "Who may call: a key with the scope that is named, sent as `Authorization: Key <id>:<secret>`, as the "
        "playground's cookie or as a temporary token for the application. A key has `submit`, `read` and `upload` "
        "unless it was made with fewer; an administrator's has `operate`, too. A `link` or `signed URL` is itself the "
        "permission.",
        *(f"## {section}\n\n{routes_table(routes)}" for section, routes in sections.items()),
        f"`{app.openapi_url}` describes these routes for programs, and `{app.docs_url}` is a page to try them out.",
        "## fal's hosts",
        "The header `Host` chooses the path that is put in front, so that programs for fal find the same routes.",
        table(
            ("host", "prefix"), ((f"`{host}`", f"`{prefix}`" if prefix else "") for host, prefix in PREFIXES.items())
        ),
        f"`{PROXY_PATH}` is fal's proxy route: the URL in the header `{PROXY_HEADER}` names a path on one of these "
        "hosts, and the server answers as if the request had been sent there.",
    )


def routes_table(routes: Iterable[Route]) -> str:
    rows = (
        (", ".join(sorted(route.methods)), f"`{route.path}`", route.callers, route.summary)
        for route in sorted(routes, key=lambda route: route.path)
    )
    return table(("method", "path", "who may call", "summary"), rows)


def distinct_routes(app: FastAPI) -> Iterable[Route]:
    """Returns the routes, each once: a function that several routes run at one path, with or without `/queue`."""
    contexts = [context for context in iter_route_contexts(app.routes) if hasattr(context, "dependant")]
    summaries = {context.endpoint: context.summary for context in contexts if context.summary}
    found: dict[tuple[object, str], Route] = {}
    for context in contexts:
        path = str(context.path).replace(OPTIONAL_PATH, "[/{path}]").replace(":path}", "}")
        key = context.endpoint, path.removeprefix("/queue").replace("[/{path}]", "")
        route = found.setdefault(key, route_of(context, path, summaries.get(context.endpoint)))
        route.methods |= context.methods or set()
        if path.replace("[/{path}]", "") == route.path:
            route.path = path
    return found.values()


def route_of(context: RouteContext, path: str, summary: str | None) -> Route:
    """summary: of another route that runs the same function."""
    calls = set(calls_of(context.dependant))
    anyone = "link" if "{token}" in path else "anyone"
    title = context.summary or summary or str(context.name).replace("_", " ").capitalize()
    description = (getdoc(context.endpoint) or "").partition("\n\n")[0]
    return Route(
        section=(context.tags or ["playground"])[0].capitalize(),
        path=path,
        methods=set(),
        callers=next((caller for call, caller in CALLERS.items() if call in calls), anyone),
        summary=f"{title}. {description}".strip(),
    )


def calls_of(dependant: Dependant) -> Iterator[object]:
    for dependency in dependant.dependencies:
        yield dependency.call
        yield from calls_of(dependency)


if __name__ == "__main__":
    main()
