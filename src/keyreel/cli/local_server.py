"""Lets commands find and call the server that runs on a data folder of this machine."""

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from keyreel.errors import KeyreelError

_NAME = "server.json"
_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A server on this machine, described by a file in its data folder."""

    url: str
    credentials: str = field(repr=False)
    pid: int
    authority: str | None = None
    """Path of the authority's certificate, if the server has a certificate of its own."""

    @classmethod
    def find(cls, data_dir: Path) -> Self | None:
        """Returns the server of a data folder, or None. It may have stopped; see `answers`."""
        try:
            return cls(**json.loads((data_dir / _NAME).read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    @contextmanager
    def announced(self, data_dir: Path) -> Iterator[None]:
        """Writes the file for the duration of the block. It contains a key, so only the owner may read it."""
        file = data_dir / _NAME
        file.unlink(missing_ok=True)
        file.touch(mode=0o600)
        file.write_text(json.dumps(asdict(self)))
        try:
            yield
        finally:
            file.unlink(missing_ok=True)

    def answers(self) -> bool:
        """Returns False if the server was killed and left its file behind."""
        try:
            self.call("GET", "/health/live")
        except KeyreelError:
            return False
        return True

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Returns the decoded response. Raises KeyreelError with the server's message."""
        request = urllib.request.Request(  # noqa: S310
            f"{self.url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Key {self.credentials}", "Content-Type": "application/json"},
        )
        try:
            with self._opener().open(request, timeout=_TIMEOUT) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise KeyreelError(json.load(error)["detail"]) from None
        except urllib.error.URLError as error:
            raise KeyreelError(f"No server answers at {self.url}: {error.reason}.") from None

    def _opener(self) -> urllib.request.OpenerDirector:
        """Ignores the environment's proxies, because the server is on this machine."""
        tls = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=self.authority))
        return urllib.request.build_opener(urllib.request.ProxyHandler({}), tls)
