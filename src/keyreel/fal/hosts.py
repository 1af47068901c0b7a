"""fal's hosts, and the path prefix of each on a Keyreel server.

The server, `keyreel wrap` and the file links share this table. `keyreel wrap` refuses hosts below fal's domains that
are missing here: passed on, they would get the program's key and prompt.
"""

PREFIXES = {
    "queue.fal.run": "/queue",
    "fal.run": "/run",
    "ws.fal.run": "/run",
    "rest.fal.ai": "",
    "rest.alpha.fal.ai": "",
    "api.fal.ai": "/platform",
    "fal.media": "",
    "v3.fal.media": "",
    "v3b.fal.media": "",
    # `fal_client` turns to these when it cannot connect to the first two.
    "falrun.com": "/run",
    "queue.falrun.com": "/queue",
}
"""Prefixes are needed because the same path means different things on different hosts: `POST /fal-ai/...` submits a
request on `queue.fal.run` but waits for the output on `fal.run`."""

QUEUE = "https://queue.fal.run"
MEDIA = "https://v3.fal.media"
"""The addresses in answers to programs that know only fal."""

NO_WEBSOCKETS = "This server does not support WebSockets. Submit to the queue and stream the status instead."
"""At most 123 bytes, so that it can be the reason of a close."""
WEBSOCKET_CLOSED = 4404
"""The code of a close. Those from 4000 are for applications."""

FILE_HOSTS = frozenset({"fal.media", "v3.fal.media", "v3b.fal.media"})
"""Hosts that serve files."""

DOMAINS = ("fal.run", "fal.ai", "fal.media", "falrun.com")
"""All hosts at or below these are fal's."""


def is_fals(host: str) -> bool:
    """Whether a host name, without a port, is fal's. The table need not know it."""
    name = host.lower().rstrip(".")
    return any(name == domain or name.endswith(f".{domain}") for domain in DOMAINS)
