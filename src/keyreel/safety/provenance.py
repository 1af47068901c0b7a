"""Provenance metadata of a video: enough to make the video again, without private data."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from keyreel.fal.schema import Request, replace_sources
from keyreel.version import __version__
from keyreel.video.job import Prepared
from keyreel.video.recipes import Capabilities


class ModelFacts(Protocol):
    """The facts about a model that the metadata contains."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def capabilities(self) -> Capabilities: ...


def without_secrets(source: str) -> str:
    """Removes the query of a URL, the content of a data URI and the folder of an absolute path."""
    parts = urlsplit(source)
    if parts.scheme in ("http", "https"):
        return f"{parts.scheme}://{parts.hostname}{parts.path}"
    return "data:" if parts.scheme == "data" else Path(source).name if Path(source).is_absolute() else source


def metadata(
    request: Request, prepared: Prepared, model: ModelFacts, redact: Callable[[str], str] = without_secrets
) -> dict[str, str]:
    """Returns the metadata for the MP4's header. redact: removes private parts from the sources of inputs."""
    fields = replace_sources(request, redact).model_dump(exclude_defaults=True) | {"seed": prepared.job.seed}
    sampling = prepared.job.sampling
    facts: dict[str, Any] = {
        "generator": f"Keyreel {__version__}",
        "request": fields,
        "inputs": prepared.inputs,
        "model": {"name": model.name, "sha256": model.fingerprint} | model.capabilities.used_by(sampling.recipe),
        "sampling": {name: getattr(sampling, name) for name in sampling.__slots__},
    }
    if prepared.job.prompt != request.prompt:
        facts["expanded_prompt"] = prepared.job.prompt
    return {"comment": json.dumps(facts, ensure_ascii=False, sort_keys=True)}
