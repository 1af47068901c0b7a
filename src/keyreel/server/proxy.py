"""The route that browsers use in place of fal: `/api/fal/proxy`, with what is meant in a header.

fal's own proxies fetch the target and add a key. This one fetches nothing: the target only says which of our routes is
meant. And it adds no key: who has none here may do nothing.
"""

from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers

PATH = "/api/fal/proxy"
HEADER = "x-fal-target-url"


@dataclass(frozen=True, slots=True)
class Target:
    host: str
    path: bytes
    query: bytes


def target_of(headers: Headers) -> Target | None:
    """None when there is no target, or none that can be read."""
    try:
        url = urlsplit(headers.get(HEADER, ""))
        host = url.hostname
    except ValueError:
        return None
    if url.scheme != "https" or not host:
        return None
    return Target(host, url.path.encode("latin-1"), url.query.encode("latin-1"))
