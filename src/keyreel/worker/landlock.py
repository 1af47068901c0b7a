"""Which files a process may open, and that it may not connect (Landlock)."""

import ctypes
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from struct import pack

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""Numbers of the system calls, the same on every architecture."""
VERSION = 1
PATH_BENEATH = 1
PR_SET_NO_NEW_PRIVS = 38

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << bit for bit in range(6))
MAKE_DIR, MAKE_FILE = 1 << 7, 1 << 8
TRUNCATE = 1 << 14
READ = READ_FILE | READ_DIR
WRITE = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_FILE | TRUNCATE
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
"""Rights that a rule for a single file may give."""
SINCE = {1: (1 << 13) - 1, 2: 1 << 13, 3: TRUNCATE, 5: 1 << 15}
"""Rights to files that each version of the interface added: all are taken away unless a rule gives them."""
CONNECT_AND_BIND_TCP, NETWORK_SINCE = 0b11, 4
OUTSIDE_SOCKETS_AND_SIGNALS, SCOPES_SINCE = 0b11, 6


def version() -> int:
    """Returns the version of the kernel's interface, or 0."""
    if sys.platform != "linux":
        return 0
    return max(0, _call(CREATE_RULESET, None, 0, VERSION))


def restrict(*, read: Iterable[Path], write: Iterable[Path]) -> None:
    """Lets this thread, and those that it starts, open nothing but these files and folders, for good. Raises OSError.

    Paths that do not exist are left out.
    """
    offered = version()
    handled = sum(rights for since, rights in SINCE.items() if since <= offered)
    ruleset = _ruleset(offered, handled)
    try:
        for paths, rights in ((read, READ), (write, WRITE)):
            for path in paths:
                with suppress(FileNotFoundError):
                    _allow(ruleset, path, rights & handled)
        _checked(ctypes.CDLL(None, use_errno=True).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        _checked(_call(RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)


def _ruleset(offered: int, handled: int) -> int:
    network = CONNECT_AND_BIND_TCP if offered >= NETWORK_SINCE else 0
    scopes = OUTSIDE_SOCKETS_AND_SIGNALS if offered >= SCOPES_SINCE else 0
    attributes = pack("QQQ", handled, network, scopes)
    return _checked(_call(CREATE_RULESET, attributes, len(attributes), 0))


def _allow(ruleset: int, path: Path, rights: int) -> None:
    folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = pack("=Qi", rights if path.is_dir() else rights & OF_FILES, folder)
        _checked(_call(ADD_RULE, ruleset, PATH_BENEATH, rule, 0))
    finally:
        os.close(folder)


def _call(number: int, *arguments: int | bytes | None) -> int:
    """Returns what the system call returns."""
    converted = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return int(libc.syscall(ctypes.c_long(number), *converted))


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"The files of a process cannot be restricted: {os.strerror(code)}")
    return result
