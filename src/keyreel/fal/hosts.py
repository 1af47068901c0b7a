"""fal's hosts, and the path prefix of each on a Keyreel server.

The server, `keyreel wrap` and the file links share this table. Requests to a host that is missing here reach fal, with
the program's key and prompt.
"""

PREFIXES = {
    "queue.fal.run": "/queue",
    "fal.run": "/run",
    "ws.fal.run": "/run",
    "rest.fal.ai": "",
    "rest.alpha.fal.ai": "",
    "v3.fal.media": "",
    "v3b.fal.media": "",
}
"""Prefixes are needed because the same path means different things on different hosts: `POST /fal-ai/...` submits a
request on `queue.fal.run` but waits for the output on `fal.run`."""

FILE_HOSTS = frozenset({"v3.fal.media", "v3b.fal.media"})
"""Hosts that serve files."""
