"""The server that runs on a data folder, as commands on the same machine find it."""

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
    url: str
    credentials: str = field(repr=False)
    pid: int
    authority: str | None = None
    """A file: who signed the server's certificate, where it has one of its own."""

    @classmethod
    def find(cls, data_dir: Path) -> Self | None:
        try:
            return cls(**json.loads((data_dir / _NAME).read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    @contextmanager
    def announced(self, data_dir: Path) -> Iterator[None]:
        """For the owner's eyes only: the file holds a key."""
        file = data_dir / _NAME
        file.unlink(missing_ok=True)
        file.touch(mode=0o600)
        file.write_text(json.dumps(asdict(self)))
        try:
            yield
        finally:
            file.unlink(missing_ok=True)

    def answers(self) -> bool:
        """False when it was killed and the file is left over."""
        try:
            self.call("GET", "/health/live")
        except KeyreelError:
            return False
        return True

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The decoded answer. Raises KeyreelError with the server's own words."""
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
        """Without the environment's proxies: the server is on this machine."""
        tls = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=self.authority))
        return urllib.request.build_opener(urllib.request.ProxyHandler({}), tls)
