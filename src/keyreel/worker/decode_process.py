"""The decode process: opens untrusted files, with limited memory and CPU time and without secrets.

It has neither the server's environment nor its connections. A file that crashes it fails only its own request.
"""

import asyncio
import math
import resource
import traceback
from collections.abc import Callable, Coroutine
from typing import Any

from keyreel.checkpoints.lora_keys import check_lora
from keyreel.errors import RequestError
from keyreel.inputs.decode import decode
from keyreel.settings import MIB
from keyreel.worker.channel import Channel
from keyreel.worker.messages import Decode, Failed, Refused, Spooled
from keyreel.worker.spool import spool

MEMORY = 4096 * MIB
"""Bytes of writable memory. The longest 720p clip takes 445 MB, a picture of 100 megapixels about 800 MB."""
CPU_SECONDS = 120
"""CPU time for one request."""


async def decode_inputs(order: Decode) -> Spooled:
    """Decodes the inputs into the order's folder and checks the LoRAs. Raises RequestError."""
    prepared = await decode(order.request, dict(order.files), order.grid, order.limits, order.sampling)
    for adapter in prepared.job.adapters:
        check_lora(adapter.path, order.linears, loc=adapter.loc, name=adapter.name)
    return spool(prepared, order.folder)


DecodeInputs = Callable[[Decode], Coroutine[Any, Any, Spooled]]


def main(decode_inputs: DecodeInputs = decode_inputs) -> None:
    channel = Channel.to_supervisor()
    # RLIMIT_DATA, not RLIMIT_AS: reading the header of a LoRA maps the whole file into the address space.
    _limit(resource.RLIMIT_DATA, MEMORY)
    _limit(resource.RLIMIT_CORE, 0)
    try:
        while True:
            order = channel.receive()
            if isinstance(order, Decode):
                _limit_cpu()
                channel.send(_answer(order, decode_inputs))
    except (EOFError, ConnectionError):
        return


def decode_error(reason: str) -> RequestError:
    return RequestError.at((), f"The pictures and clips {reason}. Send other files.", "file_decode_error")


def _answer(order: Decode, decode_inputs: DecodeInputs) -> Spooled | Refused | Failed:
    try:
        return asyncio.run(decode_inputs(order))
    except RequestError as error:
        return Refused(error.problems)
    except MemoryError:
        reason = f"need more memory than the {MEMORY // MIB} MiB that decoding may use"
        return Refused(decode_error(reason).problems)
    except Exception as error:  # noqa: BLE001 - the supervisor needs an answer to every order
        traceback.print_exc()
        return Failed(f"{type(error).__name__}: {error}")


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
