"""Keyreel generates videos from prompts, pictures, clips and LoRAs.

    import keyreel
    output = keyreel.generate(prompt="a red circle moves right", resolution="480p", out="circle.mp4")

`keyreel.stream` also yields events while it runs. `generate_async` and `stream_async` do the same beside an event loop.
All need `keyreel[engine]`; importing this package does not.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from keyreel.version import __version__

if TYPE_CHECKING:
    from keyreel.errors import KeyreelError, ModelError, RequestError
    from keyreel.fal.schema import Output, Request
    from keyreel.local import generate, generate_async, load_model, stream, stream_async

__all__ = [
    "KeyreelError",
    "ModelError",
    "Output",
    "Request",
    "RequestError",
    "__version__",
    "generate",
    "generate_async",
    "load_model",
    "stream",
    "stream_async",
]

_MODULES = {
    "KeyreelError": "keyreel.errors",
    "ModelError": "keyreel.errors",
    "Output": "keyreel.fal.schema",
    "Request": "keyreel.fal.schema",
    "RequestError": "keyreel.errors",
    "generate": "keyreel.local",
    "generate_async": "keyreel.local",
    "load_model": "keyreel.local",
    "stream": "keyreel.local",
    "stream_async": "keyreel.local",
}


def __getattr__(name: str) -> object:
    """Imports a public name when it is first used (PEP 562), so that worker processes import only what they need."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
