"""What made a video, for the file's metadata: enough to make it again, nothing that should stay private."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from keyreel import __version__
from keyreel.prepare import Prepared
from keyreel.recipes import Abilities
from keyreel.schema import Request


class ModelFacts(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def abilities(self) -> Abilities: ...


def without_secrets(source: str) -> str:
    """A link without its query, where signatures and tokens are; of a data URI or a path only what it is called."""
    parts = urlsplit(source)
    if parts.scheme in ("http", "https"):
        return f"{parts.scheme}://{parts.hostname}{parts.path}"
    return "data:" if parts.scheme == "data" else Path(source).name if Path(source).is_absolute() else source


def metadata(
    request: Request, prepared: Prepared, model: ModelFacts, redact: Callable[[str], str] = without_secrets
) -> dict[str, str]:
    """For the MP4's header. `redact`: what may be told of where an input came from."""
    fields = request.model_dump(exclude_defaults=True) | {"seed": prepared.job.seed}
    for kind, key in (("images", "image_url"), ("videos", "video_url"), ("loras", "path")):
        for item in fields.get(kind, ()):
            item[key] = redact(item[key])
    sampling = prepared.job.sampling
    facts: dict[str, Any] = {
        "generator": f"Keyreel {__version__}",
        "request": fields,
        "inputs": prepared.inputs,
        "model": {"name": model.name, "sha256": model.fingerprint} | model.abilities.used_by(sampling.recipe),
        "sampling": {name: getattr(sampling, name) for name in sampling.__slots__},
    }
    if prepared.job.prompt != request.prompt:
        facts["expanded_prompt"] = prepared.job.prompt
    return {"comment": json.dumps(facts, ensure_ascii=False, sort_keys=True)}
