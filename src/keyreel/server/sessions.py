"""Who has opened the playground: a cookie in the place of the key.

The key comes once, after the # of the first URL, and the page exchanges it for this cookie and forgets it. Scripts
cannot read the cookie, other sites cannot send it, and it counts only beside a header that no other origin may set:
CORS here allows no credentials. It holds no secret of the key and ends with it.
"""

import hashlib

from starlette.requests import HTTPConnection
from starlette.responses import Response

from keyreel.links import Links
from keyreel.server.proxy import HEADER as PROXY_HEADER

LIFETIME = 30 * 86_400
PAGE_HEADER = "x-keyreel-page"


def session_key(connection: HTTPConnection, links: Links) -> str | None:
    """The id of the key that opened this session."""
    if PAGE_HEADER not in connection.headers and PROXY_HEADER not in connection.headers:
        return None
    token = connection.cookies.get(_name(links))
    claims = links.verify_session(token) if token else None
    return claims.key_id if claims else None


def begin_session(response: Response, links: Links, key_id: str) -> None:
    _set(response, links, links.issue_session(key_id, LIFETIME), LIFETIME)


def end_session(response: Response, links: Links) -> None:
    _set(response, links, "", 0)


def _set(response: Response, links: Links, value: str, max_age: int) -> None:
    secure = links.base_url.startswith("https:")
    # The path "/": behind a proxy this server does not always know what it is called outside.
    response.set_cookie(_name(links), value, max_age=max_age, path="/", secure=secure, httponly=True, samesite="strict")


def _name(links: Links) -> str:
    """Of this installation: ports of one host share their cookies."""
    return f"keyreel_{hashlib.sha256(b'session' + links.secret).hexdigest()[:8]}"
