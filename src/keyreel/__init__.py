"""Keyreel: a prompt, pictures, clips and LoRAs in, a video out.

    import keyreel
    output = keyreel.generate(prompt="a red circle moves right", resolution="480p", out="circle.mp4")

`keyreel.stream` yields events on the way. Both need `keyreel[engine]`; importing this package does not.
"""

__version__ = "0.1.0"

from typing import TYPE_CHECKING

from keyreel.errors import KeyreelError, ModelError, RequestError
from keyreel.local import generate, stream
from keyreel.schema import Output, Request

if TYPE_CHECKING:
    from keyreel.engine.models import Model

__all__ = ["KeyreelError", "ModelError", "Output", "Request", "RequestError", "generate", "load_model", "stream"]


def load_model(name: str = "demo", device: str | None = None) -> "Model":
    """Loads a model once, to make several videos with it (`generate(..., model=...)`)."""
    from keyreel.engine.models import load_model as load
    from keyreel.settings import Settings

    return load(name, device, Settings().cache_dir)
