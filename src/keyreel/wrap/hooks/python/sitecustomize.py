"""Imported by Python before a program (PYTHONPATH): leads connections to fal's hosts to the stand-in of `keyreel wrap`.

It runs in the program's Python (3.7 or later), where Keyreel need not be installed: it imports the standard library
only.
"""

from __future__ import annotations

import importlib.abc
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
_PLACE = "127.70.65.76"
"""What fal's hosts resolve to: some libraries keep the address and choose the port themselves. It is one of this
machine, so that nothing leaves where no hook sees the connection."""
_getaddrinfo = socket.getaddrinfo
_gethostbyname = socket.gethostbyname
_connect = socket.socket.connect
_connect_ex = socket.socket.connect_ex
_trust = ssl.SSLContext.load_verify_locations


def _is_fals(host: Any) -> bool:
    name = (host.decode("latin-1") if isinstance(host, (bytes, bytearray)) else str(host)).lower().rstrip(".")
    return name == _PLACE or any(name == domain or name.endswith("." + domain) for domain in _WRAP["domains"])


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
    if port:
        _standin_for(host, port)
    return [(socket.AF_INET, kind, socket.IPPROTO_TCP, "", (_PLACE, 443 if port else 0))]


def gethostbyname(host: Any) -> str:
    """An older way to resolve a name."""
    return _PLACE if _is_fals(host) else _gethostbyname(host)


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


class _OnUvloop(importlib.abc.MetaPathFinder):
    """uvloop resolves and connects in C. Its own classes are changed when a program imports it."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:  # noqa: ARG002
        if name != "uvloop":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec and spec.loader:
            execute = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                execute(module)
                _change(module.Loop)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _change(loop: Any) -> None:
    base = loop.__base__

    async def loop_getaddrinfo(self: Any, host: Any, port: Any, **kwargs: Any) -> Any:
        if host is None or not _is_fals(host):
            return await base.getaddrinfo(self, host, port, **kwargs)
        return getaddrinfo(host, port, **kwargs)

    async def create_connection(self: Any, factory: Any, host: Any = None, port: Any = None, **kwargs: Any) -> Any:
        if host is not None and _is_fals(host):
            if kwargs.get("ssl"):
                kwargs.setdefault("server_hostname", host)
            host, port = _standin_for(host, port)
        return await base.create_connection(self, factory, host, port, **kwargs)

    async def sock_connect(self: Any, sock: Any, address: Any) -> None:
        await base.sock_connect(self, sock, _address(address))

    loop.getaddrinfo, loop.create_connection, loop.sock_connect = loop_getaddrinfo, create_connection, sock_connect


def _run_the_next_one() -> None:
    """Python imports only one `sitecustomize`, so an environment's own would be lost."""
    rest = [path for path in sys.path if os.path.abspath(path) != _HERE]  # noqa: PTH100
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", rest)
    if spec and spec.loader:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


socket.getaddrinfo = getaddrinfo
socket.gethostbyname = gethostbyname
socket.socket.connect = connect  # type: ignore[assignment, method-assign]
socket.socket.connect_ex = connect_ex  # type: ignore[assignment, method-assign]
ssl.SSLContext.load_verify_locations = load_verify_locations  # type: ignore[method-assign]
sys.meta_path.insert(0, _OnUvloop())
_run_the_next_one()
