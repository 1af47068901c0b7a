"""Sessions: the cookie that stands for a key."""

from http.cookies import SimpleCookie

import httpx
import pytest
from starlette.responses import Response

from keyreel.files.links import Links
from keyreel.server.sessions import LIFETIME, begin_session
from keyreel.store.records import Key
from keyreel.store.scopes import USER_SCOPES
from tests.server.live import LiveServer
from tests.server.storage_api import Api

NOBODY = {"Authorization": ""}
PAGE = NOBODY | {"X-Keyreel-Page": "1"}


def test_the_cookie_without_the_pages_header_is_refused(http: httpx.Client, server: LiveServer) -> None:
    """A form on another site could send the cookie, but not the header."""
    ((name, value),) = http.post("/api/session").cookies.items()
    sent = {"Cookie": f"{name}={value}"}
    without = httpx.get(f"{server.url}/api/requests", headers=sent, trust_env=False)
    with_it = httpx.get(f"{server.url}/api/requests", headers=sent | {"X-Keyreel-Page": "1"}, trust_env=False)
    assert (without.status_code, with_it.status_code) == (401, 200)


@pytest.mark.parametrize(
    ("told", "code"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "same-site"}, 401),
        ({"Sec-Fetch-Site": "cross-site"}, 401),
        ({"Origin": "http://evil.example"}, 401),
        ({"Origin": "null"}, 401),
        ({"Origin": "own"}, 200),
    ],
)
def test_a_page_of_another_origin_has_no_session(
    http: httpx.Client, server: LiveServer, told: dict[str, str], code: int
) -> None:
    http.post("/api/session")
    sent = {name: server.url if value == "own" else value for name, value in told.items()}
    assert http.get("/api/requests", headers=PAGE | sent).status_code == code


def test_signing_out_deletes_the_cookie(http: httpx.Client) -> None:
    http.post("/api/session")
    assert http.get("/api/requests", headers=PAGE).status_code == 200
    http.delete("/api/session", headers=PAGE)
    assert not http.cookies
    assert http.get("/api/requests", headers=PAGE).status_code == 401


def test_a_copy_of_the_cookie_ends_with_the_session(http: httpx.Client, server: LiveServer) -> None:
    http.post("/api/session")
    ((name, value),) = http.cookies.items()
    copy = PAGE | {"Cookie": f"{name}={value}"}
    assert httpx.get(f"{server.url}/api/requests", headers=copy, trust_env=False).status_code == 200
    http.delete("/api/session", headers=PAGE)
    assert httpx.get(f"{server.url}/api/requests", headers=copy, trust_env=False).status_code == 401
    http.post("/api/session")
    assert http.get("/api/requests", headers=PAGE).status_code == 200


def test_only_a_key_opens_a_session(http: httpx.Client) -> None:
    answer = http.post("/api/session", headers=NOBODY)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


def test_a_session_ends_with_its_key(http: httpx.Client, server: LiveServer) -> None:
    key = server.call(server.services.store.keys.create("guest"))
    http.post("/api/session", headers={"Authorization": f"Key {key.key.id}:{key.secret}"})
    assert http.get("/api/requests", headers=PAGE).status_code == 200
    http.delete(f"/keys/{key.key.id}", headers=server.admin_headers)
    answer = http.get("/api/requests", headers=PAGE)
    assert (answer.status_code, answer.json()) == (
        401,
        {"detail": "This session has ended: its user signed out, or its key was revoked or has expired."},
    )


async def test_a_session_ends_with_its_lifetime(api: Api) -> None:
    await api.client.post("/api/session", headers=api.auth())
    for seconds, code in ((LIFETIME - 60, 200), (120, 401)):
        api.later(seconds)
        assert (await api.client.get("/api/requests", headers=PAGE)).status_code == code


@pytest.mark.parametrize(("url", "secure"), [("http://127.0.0.1:8000", False), ("https://example.com/studio", True)])
def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(url: str, secure: bool) -> None:
    (cookie,) = cookies(Links(url, b"s" * 32)).values()
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "strict", "/")
    assert bool(cookie["secure"]) is secure


def test_installations_on_one_host_have_cookies_of_different_names() -> None:
    """Browsers send a host's cookies to all its ports."""
    one, other = (cookies(Links("http://127.0.0.1:8000", secret)) for secret in (b"a" * 32, b"b" * 32))
    assert one.keys().isdisjoint(other.keys())


def cookies(links: Links) -> SimpleCookie:
    """Returns the cookies of a new session."""
    response = Response()
    begin_session(response, links, Key("key-1", "studio", USER_SCOPES, 0.0, None))
    return SimpleCookie(response.headers["set-cookie"])
