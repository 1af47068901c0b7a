"""Webhook URLs, which may contain passwords: encrypted in the database, and masked where operators see them."""

from base64 import urlsafe_b64encode
from collections.abc import Iterable
from urllib.parse import urlsplit

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from keyreel.errors import KeyreelError

_SEALED = "http://sealed.invalid/"
"""How an encrypted URL begins. No host has this name (RFC 2606): an older release that finds such a URL during an
upgrade cannot call it, and tries again until a newer one does."""
_MASK = "***"


class UnreadableUrlError(KeyreelError):
    """The URL was encrypted with a secret that this process does not have."""

    def __init__(self) -> None:
        super().__init__("The URL was encrypted with a secret that this server no longer has.")


class WebhookUrls:
    """secrets: 32 bytes each. The first one encrypts, and what any of them encrypted can be read."""

    def __init__(self, secrets: Iterable[bytes]) -> None:
        self._fernet = MultiFernet([Fernet(urlsafe_b64encode(secret)) for secret in secrets])

    def seal(self, url: str) -> str:
        """Returns the URL as it is stored."""
        return _SEALED + self._fernet.encrypt(url.encode("utf-8", "replace")).decode()

    def open(self, stored: str) -> str:
        """Returns a stored URL as the client sent it. Raises UnreadableUrlError."""
        if not stored.startswith(_SEALED):
            return stored  # an older release stored it
        try:
            return self._fernet.decrypt(stored.removeprefix(_SEALED)).decode()
        except InvalidToken:
            raise UnreadableUrlError from None

    def masked(self, stored: str) -> str:
        """Returns a stored URL without what may be secret: user name, password, values of the query and fragment."""
        try:
            parts = urlsplit(self.open(stored))
        except UnreadableUrlError as error:
            return str(error)
        user, at, host = parts.netloc.rpartition("@")
        query = "&".join(map(_masked_field, parts.query.split("&"))) if parts.query else ""
        return parts._replace(netloc=f"{user and _MASK}{at}{host}", query=query, fragment="").geturl()


def _masked_field(field: str) -> str:
    name, equals, _ = field.partition("=")
    return f"{name}={_MASK}" if equals else _MASK
