"""What a program called, and where it went."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from keyreel.fal.hosts import PREFIXES

_MODEL = re.compile(r"/([\w.-]+/[\w.-]+(?:/(?!requests/)[\w.-]+)*)/?")
_IDS = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[\w-]+|[\w-]{40,}")
"""Request ids, tokens and signatures. A list of calls is no place for them."""
NOT_FOUND = 404
REFUSAL = "{host} a host of fal that Keyreel does not serve. Nothing was sent to fal."


@dataclass(frozen=True, slots=True)
class Calls:
    """Counts calls and warns about those that cannot do what the program expects.

    `server` is the Keyreel server's address, `warn` shows one line.
    """

    server: str
    warn: Callable[[str], None]
    _counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    _warned: set[str] = field(default_factory=set)

    def answered(self, method: str, host: str, path: str, status: int) -> None:
        """Notes a call that the server answered."""
        self._count(f"{method} https://{host}{_IDS.sub('...', path)}", f"{self.server} ({status})")
        model = _MODEL.fullmatch(path)
        if status == NOT_FOUND and model and PREFIXES.get(host) in ("/queue", "/run"):
            self._warn_once(f"the program asked for {model[1]}, which {self.server} does not serve.")

    def refused(self, host: str) -> None:
        """Notes a call to a host of fal that nobody knows."""
        self._count(f"https://{host}", "refused")
        self._warn_once(REFUSAL.format(host=f"the program called {host},"))

    def failed(self, host: str, path: str) -> None:
        """Notes a call that the server did not answer."""
        self._count(f"https://{host}{_IDS.sub('...', path)}", f"{self.server} (no answer)")

    def passed(self, host: str) -> None:
        """Notes a connection to a host that is not fal's."""
        self._count(f"https://{host}", "passed on unchanged")

    def lines(self) -> Iterator[str]:
        """Yields a line for each call, in the order of the first."""
        for (call, where), count in self._counts.items():
            yield f"{count:>5}  {call} -> {where}"

    def _count(self, call: str, where: str) -> None:
        self._counts[call, where] += 1

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self.warn(text)
