"""The LoRAs that ship with Keyreel. They fit the demo model."""

from functools import cache
from pathlib import Path

from keyreel.checkpoints.catalogue import DEMO

PREFIX = "keyreel:"
"""A request names a LoRA that ships with Keyreel by this and its name."""
MODEL = "demo"
"""The name of the model that they fit."""


@cache
def bundled_loras() -> dict[str, Path]:
    """Returns the files by what a request calls them, such as `keyreel:neon`."""
    return {f"{PREFIX}{path.stem}": path for path in sorted((DEMO / "loras").glob("*.safetensors"))}
