"""The real decode process, except that certain files crash it or take all its memory, as a decoder's bug would."""

import os
import signal
from dataclasses import replace

import numpy as np

from keyreel.worker import decode_process
from keyreel.worker.messages import Decode, Spooled
from keyreel.worker.spool import pixels_folder
from tests.worker.site import picture

BOMB = b"a picture that overflows a buffer"
FLOOD = b"a picture that wants all memory"
ONCE = b"a picture that was there when something else crashed the decoder"
DOOMED = "the decoder crashes without any file"


async def decode(order: Decode) -> Spooled:
    if DOOMED in order.request.prompt:
        os.kill(os.getpid(), signal.SIGSEGV)
    folder = pixels_folder(order.folder)
    for loc, file in order.files:
        match file.path.read_bytes():
            case content if content == BOMB:
                os.kill(os.getpid(), signal.SIGSEGV)
            case content if content == ONCE and not (folder / "crashed").exists():
                (folder / "crashed").touch()
                os.kill(os.getpid(), signal.SIGSEGV)
            case content if content == ONCE:
                (folder / "picture").write_bytes(picture())
                order = replace(order, files=((loc, replace(file, path=folder / "picture")),))
            case content if content == FLOOD:
                np.ones(decode_process.MEMORY, np.uint8)
    return await decode_process.decode_inputs(order)


if __name__ == "__main__":
    decode_process.main(decode)
