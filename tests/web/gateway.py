"""A server behind a reverse proxy that terminates TLS and removes a prefix from the path."""

import http.client
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trustme

from tests.server.live import live_server

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "host"}


@contextmanager
def gateway(folder: Path, prefix: str) -> Iterator[str]:
    """Runs both. Yields the public URL, without a final slash. The key is `boss:secret`; no worker runs requests."""
    target: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _forward(self, target[0], prefix)

        do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as proxy:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
        proxy.socket = context.wrap_socket(proxy.socket, server_side=True)
        base = f"https://127.0.0.1:{proxy.server_port}{prefix}"
        with live_server(folder, public_url=base) as server:
            server.worker.paused = True
            server.call(server.services.store.keys.put("boss", "secret", "boss"))
            target.append(urlsplit(server.url).netloc)
            threading.Thread(target=proxy.serve_forever, daemon=True).start()
            yield base
            proxy.shutdown()


def _forward(handler: BaseHTTPRequestHandler, target: str, prefix: str) -> None:
    if not handler.path.startswith(prefix):
        handler.send_error(404)
        return
    body = handler.rfile.read(int(handler.headers.get("content-length") or 0))
    headers = {name: value for name, value in handler.headers.items() if name.lower() not in HOP_BY_HOP}
    with closing(http.client.HTTPConnection(target)) as connection:
        connection.request(handler.command, handler.path.removeprefix(prefix) or "/", body, headers)
        answer = connection.getresponse()
        with suppress(OSError):  # the browser has disconnected
            handler.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in HOP_BY_HOP:
                    handler.send_header(name, value)
            handler.end_headers()
            while chunk := answer.read1(65536):
                handler.wfile.write(chunk)
                handler.wfile.flush()
