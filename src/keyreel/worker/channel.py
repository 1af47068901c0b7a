"""The end of the pipe to the supervisor in a process that it started."""

import ctypes
import os
import select
import signal
import socket
import sys
from typing import Self

from keyreel.worker.messages import LENGTH, Message, body_length, decode, encode

PR_SET_PDEATHSIG = 1


class Channel:
    """Blocking. The supervisor's end of file is the order to leave: `receive` raises EOFError."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link

    @classmethod
    def to_supervisor(cls) -> Self:
        """Of a process that `keyreel.worker.process` has started. It will not outlive its parent."""
        _die_with_parent()
        # A terminal's Ctrl-C and a service manager's stop reach every process; when to leave is the supervisor's word.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return cls(socket.socket(fileno=int(sys.argv[1])))

    def send(self, message: Message) -> None:
        self._link.sendall(encode(message))

    def receive(self) -> Message:
        return decode(self._read(body_length(self._read(LENGTH.size))))

    def has_message(self) -> bool:
        """Whether `receive` would not wait long."""
        return bool(select.select([self._link], [], [], 0)[0])

    def _read(self, size: int) -> bytes:
        data = self._link.recv(size, socket.MSG_WAITALL)
        if len(data) < size:
            raise EOFError
        return data


def _die_with_parent() -> None:
    """Also in the middle of a step. Elsewhere than on Linux the next look at the pipe has to do."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[2]):  # it died before that
        raise SystemExit
