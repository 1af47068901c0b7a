"""Signed links and tokens, and access rules."""

import base64
from dataclasses import replace
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyreel.fal.outcomes import JsonObject
from keyreel.files.links import Access, FileRef, Links, access, safe_name
from keyreel.store.records import File, Key
from keyreel.store.scopes import USER_SCOPES

SECRET = bytes(range(32))
LINKS = Links("http://127.0.0.1:8000", SECRET)
KEY = Key("key-1", "studio", USER_SCOPES, 1000.5, None)


def make_file(name: str = "video.mp4", obj: str = "out/1/video.mp4", acl: JsonObject | None = None) -> File:
    return File(str(uuid4()), "key-1", obj, name, "video/mp4", 10, acl, 0.0, None)


def links_at(seconds: float, secret: bytes = SECRET) -> Links:
    return Links("http://127.0.0.1:8000", secret, clock=lambda: seconds)


def test_a_file_url_leads_back_to_its_object() -> None:
    file = make_file()
    url = LINKS.file_url(file)
    assert url.startswith("http://127.0.0.1:8000/files/")
    assert url.endswith("/video.mp4")
    assert len(url) < 300
    assert LINKS.file_of(url) == FileRef(file.id, file.object)


def test_a_public_url_may_have_a_path() -> None:
    links = Links("https://example.com/keyreel/", SECRET)
    file = make_file()
    url = links.file_url(file)
    assert url.startswith("https://example.com/keyreel/files/")
    assert links.file_of(url) == FileRef(file.id, "out/1/video.mp4")
    assert links.file_of(url.replace("example.com", "example.com:443")) == FileRef(file.id, "out/1/video.mp4")


@pytest.mark.parametrize("host", ["v3.fal.media", "v3b.fal.media"])
def test_links_on_fals_hosts_are_recognised(host: str) -> None:
    assert LINKS.file_of(LINKS.file_url(make_file()).replace("http://127.0.0.1:8000", f"https://{host}")) is not None
    assert LINKS.file_of(f"https://{host}/files/monkey/abc_video.mp4") is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "video.mp4",
        "data:image/png;base64,AAAA",
        "http://",
        "http://[::1",
        "http://127.0.0.1:8000",
        "http://127.0.0.1:8000/files/",
        "http://127.0.0.1:8000/files/../../etc/passwd",
        "http://127.0.0.1:8000/files/%2e%2e%2fetc%2fpasswd/passwd",
        "http://127.0.0.1:8000/files/AAAA/x",
        "http://127.0.0.1:8000/files/é/x",
        "file:///etc/passwd",
    ],
)
def test_other_urls_are_foreign(url: str) -> None:
    assert LINKS.file_of(url) is None


def test_a_valid_token_on_another_server_is_foreign() -> None:
    url = LINKS.file_url(make_file())
    for other in (
        "http://example.com",
        "http://127.0.0.1:8001",
        "https://127.0.0.1:8000",
        "http://127.0.0.1:8000@evil",
    ):
        assert LINKS.file_of(url.replace("http://127.0.0.1:8000", other)) is None


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_token_with_one_changed_byte_is_refused(position: int, change: int) -> None:
    token = bytearray(base64.urlsafe_b64decode(LINKS.file_token(make_file()) + "=="))
    token[position % len(token)] ^= change
    assert LINKS.open_file_token(base64.urlsafe_b64encode(bytes(token)).rstrip(b"=").decode()) is None


def test_tokens_of_another_installation_are_refused() -> None:
    other = links_at(0, secret=bytes(32))
    assert other.file_of(LINKS.file_url(make_file())) is None
    assert other.verify_token(LINKS.issue_token(KEY, (), 60)) is None


@given(st.text())
def test_random_text_is_no_token(text: str) -> None:
    assert LINKS.open_file_token(text) is None
    assert LINKS.verify_token(text) is None
    assert LINKS.verify_upload_token(text) is None
    assert LINKS.open_upload(text, 2**40, text) is None


@given(st.text())
def test_the_url_of_any_name_leads_back_to_its_object(name: str) -> None:
    file = make_file(name)
    url = LINKS.file_url(file)
    assert url.isascii()
    assert url.count("/") == 5
    assert LINKS.file_of(url) == FileRef(file.id, file.object)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("cat.png", "cat.png"),
        ("Übung 1.mp4", "Übung_1.mp4"),
        ("../../etc/passwd", "passwd"),
        (r"C:\Users\me\cat.png", "cat.png"),
        ('a"b\r\nSet-Cookie: c=1.png', "a_b_Set-Cookie_c_1.png"),
        ("..", "file"),
        ("", "file"),
        ("x" * 300 + ".mp4", "x" * 96 + ".mp4"),
    ],
)
def test_names_are_made_safe(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_an_upload_url_is_valid_until_it_expires() -> None:
    file = make_file()
    path, _, query = links_at(1000).upload_url(file, 60).partition("?")
    token = path.removeprefix("http://127.0.0.1:8000/storage/uploads/")
    values = dict(item.split("=") for item in query.split("&"))
    expires, signature = int(values["expires"]), values["signature"]
    assert expires == 1060
    assert links_at(1059).open_upload(token, expires, signature) == FileRef(file.id, file.object)
    assert links_at(1060).open_upload(token, expires, signature) is None
    assert links_at(1059).open_upload(token, expires + 1, signature) is None
    assert links_at(1059).open_upload(LINKS.file_token(make_file()), expires, signature) is None
    assert links_at(1059).open_upload(token, expires, "é" * 64) is None


def test_a_temporary_token_holds_key_applications_and_expiry() -> None:
    token = links_at(1000).issue_token(KEY, ("ltx-video-lora",), 120)
    claims = links_at(1119).verify_token(token)
    assert claims is not None
    assert (claims.key_id, claims.apps, claims.expires) == ("key-1", ("ltx-video-lora",), 1120)
    assert links_at(1120).verify_token(token) is None


def test_a_token_is_valid_for_one_purpose_only() -> None:
    upload, temporary = LINKS.issue_upload_token(KEY, 60), LINKS.issue_token(KEY, (), 60)
    assert LINKS.verify_upload_token(upload) is not None
    assert LINKS.verify_token(upload) is None
    assert LINKS.verify_upload_token(temporary) is None
    assert LINKS.open_file_token(upload) is None
    assert LINKS.verify_token(LINKS.file_token(make_file())) is None


def test_the_secret_is_not_shown() -> None:
    assert "x01" not in repr(LINKS)


@pytest.mark.parametrize(
    ("acl", "key_id", "expected"),
    [
        (None, None, Access.ALLOW),
        ({}, None, Access.ALLOW),
        ({"default": "allow"}, None, Access.ALLOW),
        ({"default": "hide"}, None, Access.HIDE),
        ({"default": "forbid"}, "key-2", Access.FORBID),
        ({"default": "hide"}, "key-1", Access.ALLOW),
        ({"default": "hide", "rules": [{"user": "key-2", "decision": "allow"}]}, "key-2", Access.ALLOW),
        ({"default": "hide", "rules": [{"user": "key-2", "decision": "allow"}]}, "key-3", Access.HIDE),
        ({"default": "allow", "rules": [{"user": "key-2", "decision": "forbid"}]}, "key-2", Access.FORBID),
        (
            {"rules": [{"user": "key-2", "decision": "hide"}, {"user": "key-2", "decision": "allow"}]},
            "key-2",
            Access.HIDE,
        ),
    ],
)
def test_access_rules(acl: JsonObject | None, key_id: str | None, expected: Access) -> None:
    assert access(replace(make_file(), acl=acl), key_id) is expected
