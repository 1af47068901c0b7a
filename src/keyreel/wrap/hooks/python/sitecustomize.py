"""Imported by Python before a program (PYTHONPATH): leads connections to fal's hosts to the stand-in of `keyreel wrap`.

It runs in the program's Python (3.7 or later), where Keyreel need not be installed: it imports the standard library
only.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import socket
import ssl
import sys
from typing import Any

_HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
_WRAP = json.loads(os.environ["KEYREEL_WRAP"])
_STANDIN = ("127.0.0.1", _WRAP["port"])
_getaddrinfo = socket.getaddrinfo
_connect = socket.socket.connect
_connect_ex = socket.socket.connect_ex
_trust = ssl.SSLContext.load_verify_locations


def _is_fals(host: Any) -> bool:
    name = (host.decode("latin-1") if isinstance(host, (bytes, bytearray)) else str(host)).lower().rstrip(".")
    return any(name == domain or name.endswith("." + domain) for domain in _WRAP["domains"])


def _standin_for(host: Any, port: Any) -> tuple[str, int]:
    if str(port) in ("443", "https"):
        return _STANDIN
    text = f"keyreel wrap: refused a connection to {host}:{port}. Only HTTPS is led to Keyreel."
    sys.stderr.write(text + "\n")
    raise ConnectionRefusedError(text)


def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
    """Nearly every library resolves names with this."""
    if host is None or not _is_fals(host):
        return _getaddrinfo(host, port, *args, **kwargs)
    kind = kwargs.get("type") or (args[1] if len(args) > 1 else 0) or socket.SOCK_STREAM
    return [(socket.AF_INET, kind, socket.IPPROTO_TCP, "", _standin_for(host, port))]


def _address(address: Any) -> Any:
    if isinstance(address, tuple) and len(address) > 1 and _is_fals(address[0]):
        return _standin_for(address[0], address[1])
    return address


def connect(self: socket.socket, address: Any) -> None:
    """A socket can resolve a name itself."""
    return _connect(self, _address(address))


def connect_ex(self: socket.socket, address: Any) -> int:
    """Like `connect`."""
    return _connect_ex(self, _address(address))


def load_verify_locations(self: ssl.SSLContext, *args: Any, **kwargs: Any) -> None:
    """A program that brings its own list of authorities trusts the stand-in, too."""
    _trust(self, *args, **kwargs)
    _trust(self, _WRAP["authority"])


def _run_the_next_one() -> None:
    """Python imports only one `sitecustomize`, so an environment's own would be lost."""
    rest = [path for path in sys.path if os.path.abspath(path) != _HERE]  # noqa: PTH100
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", rest)
    if spec and spec.loader:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


socket.getaddrinfo = getaddrinfo
socket.socket.connect = connect  # type: ignore[assignment, method-assign]
socket.socket.connect_ex = connect_ex  # type: ignore[assignment, method-assign]
ssl.SSLContext.load_verify_locations = load_verify_locations  # type: ignore[method-assign]
_run_the_next_one()
