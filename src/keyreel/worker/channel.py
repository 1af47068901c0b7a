"""The pipe to the supervisor, as seen from a process that the supervisor started."""

import ctypes
import os
import select
import signal
import socket
import sys
from threading import Lock
from typing import Self

from keyreel.worker.messages import LENGTH, Message, body_length, decode, encode

PR_SET_PDEATHSIG = 1


class Channel:
    """Sends and receives messages, blocking. When the supervisor closes the pipe, the process must exit."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._sending = Lock()

    @classmethod
    def to_supervisor(cls) -> Self:
        """Opens the pipe in a process that `keyreel.worker.process` started. The process dies with its parent."""
        die_with_parent(int(sys.argv[2]))
        # Ctrl-C and a service manager's stop reach every process of the group, but the supervisor decides when to exit.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return cls(socket.socket(fileno=int(sys.argv[1])))

    def send(self, message: Message) -> None:
        """Sends a message. May be called in any thread."""
        self.forward(encode(message))

    def forward(self, frame: bytes) -> None:
        """Sends a message that is encoded already."""
        with self._sending:
            self._link.sendall(frame)

    def close(self) -> None:
        self._link.close()

    def receive(self) -> Message:
        """Waits for the next message. Raises EOFError when the supervisor has closed the pipe."""
        return decode(self._read(body_length(self._read(LENGTH.size))))

    def has_message(self) -> bool:
        """Returns whether a message has arrived, at least in part."""
        return bool(select.select([self._link], [], [], 0)[0])

    def _read(self, size: int) -> bytes:
        data = self._link.recv(size, socket.MSG_WAITALL)
        if len(data) < size:
            raise EOFError
        return data


def die_with_parent(parent: int) -> None:
    """Has Linux kill this process when its parent dies. On other systems it notices at its next `Channel.receive`.

    parent: its process id.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before the call
        raise SystemExit
