"""The decode process: opens untrusted files, with limited memory and CPU time, without secrets, and contained.

On Linux it starts a copy of itself for each request with files. `keyreel.worker.sandbox` contains the copy, which ends
with its answer: a file that takes it over finds neither another request's files nor another request.
"""

import asyncio
import gc
import math
import os
import platform
import resource
import signal
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, BinaryIO, Never

from PIL import Image

from keyreel.checkpoints.lora_keys import check_lora
from keyreel.errors import RequestError
from keyreel.inputs.decode import decode
from keyreel.settings import MIB
from keyreel.worker.channel import Channel, die_with_parent
from keyreel.worker.messages import (
    LENGTH,
    Crashed,
    Decode,
    Failed,
    Refused,
    Spooled,
    body_length,
    describe_exit,
    encode,
    prepare,
)
from keyreel.worker.sandbox import Sandbox
from keyreel.worker.spool import pixels_folder, spool

MEMORY = 4096 * MIB
"""Bytes of writable memory. The longest 720p clip takes 445 MB, a picture as much as its limit."""
CPU_SECONDS = 300
"""CPU time for one request. Compressing 161 frames of 4K by `constant_rate_factor` takes 140 s."""
COPIES = platform.system() == "Linux"
"""Elsewhere there is no sandbox, and the system's libraries do not survive being copied."""


async def decode_inputs(order: Decode) -> Spooled:
    """Decodes the inputs into the order's folder and checks the LoRAs. Raises RequestError."""
    prepared = await decode(order.request, dict(order.files), order.grid, order.limits, order.sampling)
    for adapter in prepared.job.adapters:
        check_lora(adapter.path, order.linears, loc=adapter.loc, name=adapter.name)
    return spool(prepared, order.folder)


DecodeInputs = Callable[[Decode], Coroutine[Any, Any, Spooled]]


def main(decode_inputs: DecodeInputs = decode_inputs) -> None:
    # First, because the kernel forgets with whom a process dies when it enters another user namespace.
    sandbox = Sandbox.prepare()
    channel = Channel.to_supervisor()
    _warm_up()
    # RLIMIT_DATA, not RLIMIT_AS: reading the header of a LoRA maps the whole file into the address space.
    _limit(resource.RLIMIT_DATA, MEMORY)
    _limit(resource.RLIMIT_CORE, 0)
    try:
        while True:
            order = channel.receive()
            if isinstance(order, Decode):
                channel.forward(_frame_of_answer(order, decode_inputs, sandbox, channel))
    except (EOFError, ConnectionError):
        return


def _warm_up() -> None:
    """Does once what each copy would do again."""
    Image.init()
    prepare(Spooled, Refused, Failed)
    gc.freeze()  # a collection would write to memory that the copies share


def decode_error(reason: str) -> RequestError:
    return RequestError.at((), f"The pictures and clips {reason}. Send other files.", "file_decode_error")


def _frame_of_answer(order: Decode, decode_inputs: DecodeInputs, sandbox: Sandbox, channel: Channel) -> bytes:
    pixels_folder(order.folder).mkdir(exist_ok=True)
    if COPIES and order.files:
        return _frame_of_copy(order, decode_inputs, sandbox, channel)
    with asyncio.Runner() as runner:
        _limit_cpu()
        return encode(_answer(order, decode_inputs, runner))


def _frame_of_copy(order: Decode, decode_inputs: DecodeInputs, sandbox: Sandbox, channel: Channel) -> bytes:
    """Has a contained copy of this process answer. Returns its frame, into which this process does not look."""
    reader, writer = os.pipe()
    parent, copy = os.getpid(), os.fork()
    if copy == 0:
        channel.close()
        os.close(reader)
        _answer_and_end(order, decode_inputs, sandbox, writer, parent)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        frame = _read_frame(pipe)
    os.kill(copy, signal.SIGKILL)
    _, status = os.waitpid(copy, 0)
    return frame or encode(Crashed(describe_exit(os.waitstatus_to_exitcode(status))))


def _answer_and_end(order: Decode, decode_inputs: DecodeInputs, sandbox: Sandbox, writer: int, parent: int) -> Never:
    try:
        die_with_parent(parent)
        _limit_cpu()
        runner = asyncio.Runner()
        runner.get_loop()  # makes sockets, which the sandbox does not allow
        sandbox.confine([file.path for _, file in order.files], pixels_folder(order.folder))
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(encode(_answer(order, decode_inputs, runner)))
    except BaseException:  # noqa: BLE001 - whatever happens, the copy must not do the work of its original
        traceback.print_exc()
    os._exit(1)  # the original waits for the answer only


def _answer(order: Decode, decode_inputs: DecodeInputs, runner: asyncio.Runner) -> Spooled | Refused | Failed:
    try:
        return runner.run(decode_inputs(order))
    except RequestError as error:
        return Refused(error.problems)
    except MemoryError:
        reason = f"need more memory than the {MEMORY // MIB} MiB that decoding may use"
        return Refused(decode_error(reason).problems)
    except Exception as error:  # noqa: BLE001 - the supervisor needs an answer to every order
        traceback.print_exc()
        return Failed(f"{type(error).__name__}: {error}")


def _read_frame(pipe: BinaryIO) -> bytes:
    """Returns a whole frame, or nothing if the other end closes before. Raises ValueError if it is too long."""
    header = pipe.read(LENGTH.size)
    if len(header) < LENGTH.size:
        return b""
    body = pipe.read(size := body_length(header))
    return header + body if len(body) == size else b""


def _limit_cpu() -> None:
    """Raises the CPU limit for the next request, because the system counts from the start of the process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = math.ceil(usage.ru_utime + usage.ru_stime)
    _limit(resource.RLIMIT_CPU, used + CPU_SECONDS)


def _limit(kind: int, value: int) -> None:
    """Sets the soft limit to `value`, or to the hard limit if that is lower."""
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


if __name__ == "__main__":
    main()
