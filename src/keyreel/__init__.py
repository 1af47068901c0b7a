"""Keyreel: a prompt, pictures, clips and LoRAs in, a video out.

    import keyreel
    output = keyreel.generate(prompt="a red circle moves right", resolution="480p", out="circle.mp4")

`keyreel.stream` yields events on the way. Both need `keyreel[engine]`; importing this package does not.
"""

__version__ = "0.1.0"

from keyreel.errors import KeyreelError, ModelError, RequestError
from keyreel.local import generate, load_model, stream
from keyreel.schema import Output, Request

__all__ = ["KeyreelError", "ModelError", "Output", "Request", "RequestError", "generate", "load_model", "stream"]
