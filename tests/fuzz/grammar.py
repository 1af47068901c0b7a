"""Makes requests in raw HTTP: a good call of one of the routes, with some mistakes in it."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

Json = dict[str, Any]

INTEGERS = (0, -1, 1, 255, 2**31, 2**32, 2**53 + 1, 2**63, -(2**63) - 1, 2**64, 10**30, 10**400)
NUMBERS = (*INTEGERS, 0.5, -0.0, 1e308, float("nan"), float("inf"))
TEXTS = (
    "",
    " ",
    "a",
    "0",
    "-1",
    "null",
    "\0",
    "\r\n",
    "é",
    "💡",
    "\ud800",
    "../../etc/passwd",
    "..%2f",
    "%00",
    "%ff",
    "%",
    "%zz",
    "'; DROP TABLE request; --",
    "${jndi:ldap://x}",
    "{{7*7}}",
    "data:image/png;base64,AAAA",
    "data:,",
    "data:;base64,!",
    "file:///etc/passwd",
    "http://127.0.0.1/",
    "http://[::1",
    "https://",
    "javascript:1",
    "a" * 300,
    "a" * 9000,
)
HEADERS = (
    ("Range", ("bytes=0-", "bytes=-1", "bytes=5-1", "bytes=0-0,2-3", f"bytes={10**20}-", "items=0-1", "bytes=")),
    ("If-Range", ('"x"', "Thu, 01 Jan 1970 00:00:00 GMT")),
    ("If-None-Match", ("*", '"x"', "W/")),
    (
        "Authorization",
        ("", "Key", "Key x", "Key x:y", "Key :", "Bearer x", "Bearer a.b.c", "Basic eDp5", "Key \xe9:\xff"),
    ),
    ("Cookie", ("keyreel=x", "=", ";", 'a="', "keyreel_x=a.b.c")),
    (
        "Content-Type",
        ("", "text/html", "application/json; charset=utf-16", "multipart/form-data; boundary=", "/", "a" * 500),
    ),
    ("Content-Encoding", ("gzip", "br")),
    ("Accept", ("text/html", "", "*/*;q=x")),
    ("Accept-Encoding", ("gzip", "")),
    ("Origin", ("null", "http://evil.example", "http://[")),
    ("Sec-Fetch-Site", ("cross-site", "same-origin")),
    ("Sec-Fetch-Mode", ("navigate",)),
    ("Access-Control-Request-Method", ("PUT", "")),
    ("Access-Control-Request-Headers", ("x", ",,,")),
    ("Host", ("", "queue.fal.run", "fal.run", "rest.fal.ai", "[::1", "a b", "x:y:z", "x" * 500)),
    (
        "X-Fal-Target-Url",
        ("", "https://queue.fal.run/fal-ai/x", "https://fal.run", "http://x", "https://[", "https://é/"),
    ),
    ("X-Fal-Queue-Priority", ("low", "normal", "x")),
    ("X-Fal-Request-Start-Timeout", ("0", "-1", "nan", "inf", "1e400", "x", "0.2")),
    ("X-Fal-Request-Timeout", ("1", "")),
    ("X-Fal-No-Retry", ("1", "x")),
    ("X-Fal-Store-Io", ("0", "x")),
    (
        "X-Fal-Object-Lifecycle-Preference",
        (
            "{}",
            "[]",
            "x",
            '{"expiration_duration_seconds": 1e999}',
            '{"initial_acl": {"default": "hide", "rules": [{"user": "\\ud800"}]}}',
        ),
    ),
    ("X-Fal-Object-Lifecycle", ('{"expiration_duration_seconds": 1e300}', "{", "\xff")),
    ("X-Fal-File-Name", ("", "/", "..", "a\x7fb", "\xff\xfe", "x" * 4000)),
    ("Idempotency-Key", ("", "x", "\xff", "k" * 5000)),
    ("Traceparent", ("00-0-0-0", "x", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")),
    ("X-Forwarded-For", ("1.2.3.4", "x", ",", "[::1]:99999")),
    ("Expect", ("100-continue", "x")),
    ("Upgrade", ("websocket", "h2c")),
    ("Connection", ("close", "upgrade", "keep-alive, upgrade")),
    ("X-Keyreel-Page", ("1",)),
    ("X", ("\x00", "\x01", "a\tb", "x" * 20_000)),
)
"""Names that the server reads, with values that could be read wrongly."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call. `body` is sent as it is; `framing` says how its length is told."""

    method: str
    path: str
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""
    framing: str = "length"
    version: str = "HTTP/1.1"
    is_cut: bool = False
    """The client ends in the middle."""

    def encoded(self, chance: random.Random) -> bytes:
        lines = [f"{self.method} {self.path} {self.version}", *(f"{name}: {value}" for name, value in self.headers)]
        if not any(name == "Host" for name, _ in self.headers):
            lines.append("Host: keyreel.example")
        length, body = _framed(self, chance)
        raw = "\r\n".join([*lines, *length, "Connection: close", "", ""]).encode("utf-8", "surrogatepass") + body
        return raw[: chance.randrange(len(raw))] if self.is_cut else raw


@dataclass(frozen=True, slots=True)
class Grammar:
    """calls: good ones. Their mistakes are drawn from `chance`."""

    calls: Sequence[Call]
    chance: random.Random = field(default_factory=random.Random)

    def draw(self) -> Call:
        call = self.chance.choice(self.calls)
        mistakes: Sequence[Callable[[Call], Call]] = (
            self._path,
            self._path,
            self._query,
            self._query,
            self._header,
            self._header,
            self._body,
            self._body,
            self._method,
            self._framing,
            self._cut,
            self._version,
        )
        for mistake in self.chance.choices(mistakes, k=self.chance.choice((0, 1, 1, 2, 3))):
            call = mistake(call)
        return call

    def value(self, depth: int = 3) -> Any:
        kind = self.chance.randrange(9 if depth else 5)
        match kind:
            case 0:
                return self.chance.choice(NUMBERS)
            case 1 | 2:
                return self.chance.choice(TEXTS)
            case 3 | 4:
                return self.chance.choice((None, True, False, [], {}))
            case 5 | 6:
                return [self.value(depth - 1) for _ in range(self.chance.randrange(4))]
        return {str(self.chance.choice(TEXTS)): self.value(depth - 1) for _ in range(self.chance.randrange(4))}

    def _path(self, call: Call) -> Call:
        parts = call.path.split("/")
        at = self.chance.randrange(len(parts))
        odd = str(self.chance.choice((*map(_quoted, TEXTS), *INTEGERS, "", ".", "..", "//", "?", "#")))
        changed = [*parts[:at], odd, *parts[at + self.chance.randrange(2) :]]
        return replace(call, path="/".join(changed) or "/")

    def _query(self, call: Call) -> Call:
        names = (
            "before",
            "limit",
            "state",
            "logs",
            "fal_webhook",
            "fal_max_queue_length",
            "endpoint_id",
            "expires",
            "signature",
            "since",
            "until",
            "key",
            "format",
            "fal_jwt_token",
            "q",
            "prompt",
        )
        value = _quoted(str(self.chance.choice((*TEXTS, *NUMBERS))))
        mark = "&" if "?" in call.path else "?"
        return replace(call, path=f"{call.path}{mark}{self.chance.choice(names)}={value}")

    def _header(self, call: Call) -> Call:
        name, values = self.chance.choice(HEADERS)
        kept = [pair for pair in call.headers if pair[0] != name or self.chance.random() < 0.2]
        return replace(call, headers=[*kept, (name, self.chance.choice(values))])

    def _body(self, call: Call) -> Call:
        try:
            content = json.loads(call.body)
        except (ValueError, RecursionError):
            content = None
        if isinstance(content, dict) and content and self.chance.random() < 0.7:
            changed = {**content, self.chance.choice([*content, "x"]): self.value()}
            return replace(call, body=json.dumps(changed).encode())
        return replace(call, body=self.chance.choice((self._broken(call.body), self._odd_json())))

    def _broken(self, body: bytes) -> bytes:
        changed = bytearray(body or b"{}")
        for _ in range(self.chance.randrange(1, 4)):
            changed[self.chance.randrange(len(changed))] = self.chance.randrange(256)
        return bytes(changed)

    def _odd_json(self) -> bytes:
        odd = (
            b"",
            b"null",
            b"[]",
            b"\xff",
            b"\xef\xbb\xbf{}",
            b"[" * 5000,
            b'{"a":' * 500,
            b"1" * 5000,
            b'{"a":1,"a":2}',
        )
        return self.chance.choice((*odd, json.dumps(self.value()).encode()))

    def _method(self, call: Call) -> Call:
        return replace(
            call,
            method=self.chance.choice(("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "X", "")),
        )

    def _framing(self, call: Call) -> Call:
        return replace(
            call,
            framing=self.chance.choice(("chunked", "both", "twice", "wrong", "signed", "broken", "none", "pipeline")),
        )

    def _cut(self, call: Call) -> Call:
        return replace(call, is_cut=True)

    def _version(self, call: Call) -> Call:
        return replace(call, version=self.chance.choice(("HTTP/1.0", "HTTP/2.0", "HTTP/9", "", "HTTP/1.1 x")))


def _quoted(text: str) -> str:
    """Returns the text without what would end the line or the path. The rest stays as odd as it is."""
    return text.replace(" ", "%20").replace("\r\n", "%0d%0a").replace("\0", "%00")


def _framed(call: Call, chance: random.Random) -> tuple[list[str], bytes]:
    """Returns the headers that tell the body's length, and the body."""
    body, size = call.body, len(call.body)
    match call.framing:
        case "length":
            return ([f"Content-Length: {size}"] if body or call.method in ("POST", "PUT") else []), body
        case "chunked":
            half = size // 2
            chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:half], body[half:]) if part)
            return ["Transfer-Encoding: chunked"], chunks + b"0\r\n\r\n"
        case "both":
            return [f"Content-Length: {size}", "Transfer-Encoding: chunked"], b"%x\r\n%s\r\n0\r\n\r\n" % (size, body)
        case "twice":
            return [f"Content-Length: {size}", f"Content-Length: {size + chance.randrange(2)}"], body
        case "wrong":
            return [f"Content-Length: {max(0, size - 1)}"], body
        case "signed":
            return [f"Content-Length: {chance.choice(('+1', '-1', '1_0', '0x1', '', '9' * 40, '1, 1'))}"], body
        case "broken":
            sizes = (b"x", b"-1", b"0x1", b"f" * 20, b"1;" + b"e" * 500, b"")
            return ["Transfer-Encoding: chunked"], chance.choice(sizes) + b"\r\n" + body + b"\r\n0\r\n\r\n"
        case "pipeline":
            return [f"Content-Length: {size}"], body + b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n" * 3
    return [], body
