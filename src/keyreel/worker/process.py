"""A process that the supervisor started, and the pipe to it."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Self

from keyreel.worker.environment import of_system
from keyreel.worker.messages import LENGTH, Message, body_length, decode, describe_exit, encode

ENGINE_PROCESS = (sys.executable, "-m", "keyreel.worker.engine_process")
DECODE_PROCESS = (sys.executable, "-m", "keyreel.worker.decode_process")
GUARD_PROCESS = (sys.executable, "-m", "keyreel.worker.guard_process")


class ProcessGoneError(Exception):
    """The process has ended. The message tells how."""


class Process:
    """A process and the pipe to it. `gone` is set when no more messages will arrive."""

    def __init__(
        self, popen: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.gone = asyncio.Event()
        self._popen = popen
        self._reader = reader
        self._writer = writer
        self._inbox: asyncio.Queue[Message | None] = asyncio.Queue()
        self._receiver = asyncio.create_task(self._receive_all())

    @classmethod
    async def start(cls, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Self:
        """Starts `command` as a fresh interpreter. Unlike a fork, it inherits neither memory nor connections.

        environment: by default `keyreel.worker.environment.of_system`, so that no secret is inherited.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            arguments = [*command, str(theirs.fileno()), str(os.getpid())]
            variables = of_system() if environment is None else environment
            popen = subprocess.Popen(  # noqa: S603
                arguments, pass_fds=[theirs.fileno()], env=variables, stdin=subprocess.DEVNULL
            )
        return cls(popen, *await asyncio.open_unix_connection(sock=ours))

    @property
    def pid(self) -> int:
        return self._popen.pid

    async def send(self, message: Message) -> None:
        """Sends a message. If the process is gone, nothing happens; `receive` raises the error."""
        with suppress(ConnectionError):
            self._writer.write(encode(message))
            await self._writer.drain()

    async def receive(self) -> Message:
        """Waits for the next message. Raises ProcessGoneError."""
        message = await self._inbox.get()
        if message is None:
            self._inbox.put_nowait(None)
            raise ProcessGoneError(await self._describe_exit())
        return message

    def kill(self) -> None:
        self.gone.set()
        self._popen.kill()

    async def close(self) -> None:
        self.kill()
        self._receiver.cancel()
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()
        await asyncio.to_thread(self._popen.wait)

    async def _receive_all(self) -> None:
        try:
            while True:
                header = await self._reader.readexactly(LENGTH.size)
                self._inbox.put_nowait(decode(await self._reader.readexactly(body_length(header))))
        except (EOFError, ConnectionError):
            pass
        except ValueError:  # the process sent garbage, so it can no longer be trusted
            self._popen.kill()
        finally:
            self.gone.set()
            self._inbox.put_nowait(None)

    async def _describe_exit(self) -> str:
        """Returns how the process ended. It waits a moment, because the pipe closes before the process has ended."""
        try:
            status = await asyncio.to_thread(self._popen.wait, 5)
        except subprocess.TimeoutExpired:
            return "closed its pipe"
        return describe_exit(status)
