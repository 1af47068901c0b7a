"""The route `/api/fal/proxy`, which browsers call in place of fal. A header names the target.

fal's own proxies fetch the target and add a key. This one fetches nothing: the target only selects one of our routes.
It adds no key either: callers need one of this server.
"""

from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers

PATH = "/api/fal/proxy"
HEADER = "x-fal-target-url"


@dataclass(frozen=True, slots=True)
class Target:
    """The parts of the target URL."""

    host: str
    path: bytes
    query: bytes


def target_of(headers: Headers) -> Target | None:
    """Returns the target, or None when the header is missing or is no https URL."""
    try:
        url = urlsplit(headers.get(HEADER, ""))
        host = url.hostname
    except ValueError:
        return None
    if url.scheme != "https" or not host:
        return None
    return Target(host, url.path.encode("latin-1"), url.query.encode("latin-1"))
