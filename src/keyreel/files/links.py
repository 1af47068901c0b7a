"""Signed links and tokens. Anyone who has one may use it; only this installation, with its secret, can issue one."""

import hmac
import json
import re
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import Enum, auto
from urllib.parse import quote
from uuid import UUID

from yarl import URL

from keyreel.fal.hosts import FILE_HOSTS
from keyreel.store.records import File, Key

_MAC_BYTES = 16
_UUID_BYTES = 16
_FILE_PATH = re.compile(r"/files/([A-Za-z0-9_-]+)/[^/]+")
_UNSAFE = re.compile(r"[^\w.-]+")
_MAX_NAME = 100


@dataclass(frozen=True, slots=True)
class FileRef:
    """The file that a link points to. Only the store knows whether it still exists."""

    id: str
    object: str


@dataclass(frozen=True, slots=True)
class TokenClaims:
    """What a temporary token permits: calls to `apps` (aliases, without the owner) in the name of `key_id`.

    Times are in seconds since 1970. key_created: the token ends when another key takes the same id. Tokens of an older
    release have None.
    """

    key_id: str
    apps: tuple[str, ...]
    expires: float
    key_created: float | None = None

    def stands_for(self, key: Key) -> bool:
        return self.key_id == key.id and self.key_created in (None, key.created)


class Access(Enum):
    """Whether a reader who has a file's link may read the file."""

    ALLOW = auto()
    FORBID = auto()
    HIDE = auto()
    """The server answers as if the file did not exist."""


@dataclass(frozen=True, slots=True)
class Links:
    """Makes and verifies links and tokens.

    public_url: the address that clients use. secret: see keyreel.files.secrets. accepted: secrets that do not sign, but
    whose links and tokens are valid, too.
    """

    public_url: str
    secret: bytes = field(repr=False)
    accepted: tuple[bytes, ...] = field(default=(), repr=False)
    clock: Callable[[], float] = time.time

    @property
    def base_url(self) -> str:
        return self.public_url.rstrip("/")

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """Returns every secret whose links and tokens are valid."""
        return self.secret, *self.accepted

    def file_url(self, file: File) -> str:
        return f"{self.base_url}/files/{self.file_token(file)}/{quote(safe_name(file.name))}"

    def file_of(self, url: str) -> FileRef | None:
        """Returns the file that `url` points to, or None when the URL is not ours."""
        try:
            parsed = URL(url)
            path = self._own_path(parsed)
        except ValueError:
            return None
        match = _FILE_PATH.fullmatch(path)
        return self.open_file_token(match[1]) if match else None

    def file_token(self, file: File) -> str:
        return self._seal("file", UUID(file.id).bytes + file.object.encode())

    def open_file_token(self, token: str) -> FileRef | None:
        """Returns the file of the token, or None when the token is invalid."""
        content = self._open("file", token)
        return FileRef(str(UUID(bytes=content[:_UUID_BYTES])), content[_UUID_BYTES:].decode()) if content else None

    def upload_url(self, file: File, lifetime: float) -> str:
        """Returns a URL that accepts the file's content for `lifetime` seconds, without other credentials."""
        token, expires = self.file_token(file), int(self.clock() + lifetime)
        signature = _upload_signature(self.secret, token, expires)
        return f"{self.base_url}/storage/uploads/{token}?expires={expires}&signature={signature}"

    def open_upload(self, token: str, expires: int, signature: str) -> FileRef | None:
        """Returns the file that may be uploaded, or None when the URL is invalid or has expired."""
        signatures = (_upload_signature(secret, token, expires) for secret in self.secrets)
        valid = any(hmac.compare_digest(each.encode(), signature.encode()) for each in signatures)
        return self.open_file_token(token) if valid and self.clock() < expires else None

    def issue_token(self, key: Key, apps: tuple[str, ...], lifetime: float) -> str:
        """Returns a temporary token, for programs that must not know the key."""
        return self._seal_claims("token", self._claims(key, apps, lifetime))

    def verify_token(self, token: str) -> TokenClaims | None:
        return self._open_claims("token", token)

    def issue_upload_token(self, key: Key, lifetime: float) -> str:
        """Returns the token that fal's Python client sends in place of its key when it uploads."""
        return self._seal_claims("upload", self._claims(key, (), lifetime))

    def verify_upload_token(self, token: str) -> TokenClaims | None:
        return self._open_claims("upload", token)

    def issue_session(self, key: Key, lifetime: float) -> str:
        """Returns the content of the playground's cookie, which stands for the key."""
        return self._seal_claims("session", self._claims(key, (), lifetime))

    def verify_session(self, token: str) -> TokenClaims | None:
        return self._open_claims("session", token)

    def share_token(self, request_id: str) -> str:
        """Returns a token that shows the request's video to anyone who has it, without a key."""
        return self._seal("share", UUID(request_id).bytes)

    def open_share_token(self, token: str) -> str | None:
        """Returns the id of the shared request, or None when the token is invalid."""
        content = self._open("share", token)
        return str(UUID(bytes=content)) if content else None

    def _own_path(self, url: URL) -> str:
        """Returns the path below our own address. Raises ValueError when the URL is another server's."""
        if url.host in FILE_HOSTS:
            return url.raw_path
        base = URL(self.base_url)
        if (url.scheme, url.host, url.port) != (base.scheme, base.host, base.port):
            raise ValueError("another server")
        return url.raw_path.removeprefix(base.raw_path.rstrip("/"))

    def _claims(self, key: Key, apps: tuple[str, ...], lifetime: float) -> TokenClaims:
        return TokenClaims(key.id, apps, self.clock() + lifetime, key.created)

    def _seal_claims(self, purpose: str, claims: TokenClaims) -> str:
        return self._seal(purpose, json.dumps(asdict(claims)).encode())

    def _open_claims(self, purpose: str, token: str) -> TokenClaims | None:
        content = self._open(purpose, token)
        if not content:
            return None
        values = json.loads(content)
        claims = TokenClaims(values["key_id"], tuple(values["apps"]), values["expires"], values.get("key_created"))
        return claims if self.clock() < claims.expires else None

    def _seal(self, purpose: str, content: bytes) -> str:
        mac = _mac(self.secret, purpose, content)[:_MAC_BYTES]
        return urlsafe_b64encode(mac + content).rstrip(b"=").decode()

    def _open(self, purpose: str, token: str) -> bytes | None:
        try:
            sealed = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except ValueError:
            return None
        mac, content = sealed[:_MAC_BYTES], sealed[_MAC_BYTES:]
        valid = any(hmac.compare_digest(mac, _mac(each, purpose, content)[:_MAC_BYTES]) for each in self.secrets)
        return content if valid else None


def _upload_signature(secret: bytes, token: str, expires: int) -> str:
    return _mac(secret, "put", f"{token} {expires}".encode()).hex()


def _mac(secret: bytes, purpose: str, content: bytes) -> bytes:
    """Signs the purpose, too: what was signed for one purpose is invalid for any other."""
    return hmac.digest(secret, purpose.encode() + b"\0" + content, "sha256")


def access(file: File, key_id: str | None) -> Access:
    """Returns whether a reader may read `file`. `key_id` is the reader's key, if known.

    The owner may always read it. For others, the first rule that names their key applies, else the default.
    """
    if file.acl is None or key_id == file.key_id:
        return Access.ALLOW
    rules = {rule["user"]: rule["decision"] for rule in reversed(file.acl.get("rules") or [])}
    decision = rules.get(key_id) or file.acl.get("default") or "allow"
    return Access[decision.upper()]


def safe_name(name: str) -> str:
    """Returns a plain file name: no path, no quotes, no control characters, at most 100 characters."""
    return _UNSAFE.sub("_", re.split(r"[/\\]", name)[-1]).strip("._")[-_MAX_NAME:] or "file"
