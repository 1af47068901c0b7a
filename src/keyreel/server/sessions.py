"""Sessions of the playground: a cookie stands for the key.

The key arrives once, after the # of the first URL. The page exchanges it for this cookie and forgets it. Scripts cannot
read the cookie, and other sites cannot send it. It is valid only together with a header that other origins cannot send
with it, because CORS here allows no credentials. What the browser says about the caller's origin is checked, too. The
cookie contains no secret of the key. A session ends when its user signs out, or when its key is revoked,
replaced or expires.
"""

import hashlib
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import Response

from keyreel.files.links import Links, TokenClaims
from keyreel.server.proxy import HEADER as PROXY_HEADER
from keyreel.store.records import Key

LIFETIME = 30 * 86_400
"""Seconds."""
PAGE_HEADER = "x-keyreel-page"


@dataclass(frozen=True, slots=True)
class Session:
    """A session that the cookie proves. `id` names it without giving access to it."""

    id: str
    claims: TokenClaims


def find_session(connection: HTTPConnection, links: Links) -> Session | None:
    """Returns the caller's session, or None without a valid cookie. It may have ended: see KeyRing."""
    if PAGE_HEADER not in connection.headers and PROXY_HEADER not in connection.headers:
        return None
    if not _is_same_origin(connection, links):
        return None
    for name in _cookie_names(links):
        token = connection.cookies.get(name)
        if token and (claims := links.verify_session(token)):
            return Session(hashlib.sha256(token.encode()).hexdigest(), claims)
    return None


def begin_session(response: Response, links: Links, key: Key) -> None:
    """Sets the cookie. It ends with its key, if that is sooner."""
    left = LIFETIME if key.expires_at is None else int(min(LIFETIME, key.expires_at - links.clock()))
    name, *_ = _cookie_names(links)
    _set(response, links, name, links.issue_session(key, left), left)


def delete_cookie(response: Response, links: Links) -> None:
    for name in _cookie_names(links):
        _set(response, links, name, "", 0)


def _is_same_origin(connection: HTTPConnection, links: Links) -> bool:
    """Returns whether the caller's page is ours, by what browsers say about it. Other programs say nothing."""
    headers = connection.headers
    if site := headers.get("sec-fetch-site"):
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc in (headers.get("host"), urlsplit(links.base_url).netloc)


def _set(response: Response, links: Links, name: str, value: str, max_age: int) -> None:
    secure = links.base_url.startswith("https:")
    # The path is "/" because a server behind a proxy does not always know its public path.
    response.set_cookie(name, value, max_age=max_age, path="/", secure=secure, httponly=True, samesite="strict")


def _cookie_names(links: Links) -> list[str]:
    """Returns names that only this installation uses: all ports of a host share their cookies.

    Each secret has its name. New cookies have the first one.
    """
    return [f"keyreel_{hashlib.sha256(b'session' + secret).hexdigest()[:8]}" for secret in links.secrets]
