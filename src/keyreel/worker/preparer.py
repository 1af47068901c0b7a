"""The preparer: a process that opens files which nobody vouches for, under limits, with no secret to lose.

It has neither the server's environment nor its connections. If a file kills it, only that file's request suffers.
"""

import asyncio
import math
import resource
import traceback
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from keyreel.errors import Loc, RequestError
from keyreel.fetch import Fetched, Fetcher
from keyreel.lora_keys import check_lora
from keyreel.prepare import prepare
from keyreel.settings import MIB, Settings
from keyreel.worker.channel import Channel
from keyreel.worker.messages import Failed, Prepare, Refused, Spooled
from keyreel.worker.spool import spool

MEMORY = 4096 * MIB
"""Bytes that it may write to. The longest clip of 720p takes 445 MB, a picture of 100 megapixels some 800."""
CPU_SECONDS = 120
"""For one request."""


class FetchedFiles(Fetcher):
    """Knows only what has been fetched already: from here nothing is connected to."""

    def __init__(self, files: Mapping[Loc, Fetched]) -> None:
        self._files = files
        self.local_base = None

    async def fetch(
        self,
        source: str,  # noqa: ARG002
        *,
        max_bytes: int,  # noqa: ARG002
        loc: Loc,
        headers: Mapping[str, str] | None = None,  # noqa: ARG002
    ) -> Fetched:
        return self._files[loc]


async def decode(order: Prepare) -> Spooled:
    fetcher, settings = FetchedFiles(dict(order.files)), Settings(**order.settings)
    prepared = await prepare(order.request, order.grid, fetcher, settings, order.recipe)
    for adapter in prepared.job.adapters:
        check_lora(adapter.path, order.linears, loc=adapter.loc, name=adapter.name)
    return spool(prepared, order.folder)


Decode = Callable[[Prepare], Coroutine[Any, Any, Spooled]]


def main(decode: Decode = decode) -> None:
    channel = Channel.to_supervisor()
    # Not the address space: a LoRA of any size may be mapped into it to read its header.
    _limit(resource.RLIMIT_DATA, MEMORY)
    _limit(resource.RLIMIT_CORE, 0)
    try:
        while True:
            order = channel.receive()
            if isinstance(order, Prepare):
                _limit_cpu()
                channel.send(_answer(order, decode))
    except (EOFError, ConnectionError):
        return


def too_demanding(what: str) -> RequestError:
    return RequestError.at((), f"The pictures and clips {what}. Send other files.", "file_decode_error")


def _answer(order: Prepare, decode: Decode) -> Spooled | Refused | Failed:
    try:
        return asyncio.run(decode(order))
    except RequestError as error:
        return Refused(error.problems)
    except MemoryError:
        return Refused(too_demanding("take more memory than they may").problems)
    except Exception as error:  # noqa: BLE001 - whatever it is, the supervisor has to hear of it
        traceback.print_exc()
        return Failed(f"{type(error).__name__}: {error}")


def _limit_cpu() -> None:
    """The limit counts from the start of the process: it has to grow with each request."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = math.ceil(usage.ru_utime + usage.ru_stime)
    _limit(resource.RLIMIT_CPU, used + CPU_SECONDS)


def _limit(what: int, value: int) -> None:
    """Never above what the system allows, which would be refused."""
    _, most = resource.getrlimit(what)
    resource.setrlimit(what, (value if most == resource.RLIM_INFINITY else min(value, most), most))


if __name__ == "__main__":
    main()
