"""Records refused keys in the audit log. Guesses must not fill it, so those from one address are counted together."""

from collections import Counter

from keyreel.store.audit import Action, Actor, Audit

_MAX_ADDRESSES = 256
"""Addresses that are counted apart between two calls of `flush`. Further ones are counted together."""
_MAX_ID = 100
"""Characters of an id that are recorded."""


class Refusals:
    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._more: Counter[str | None] = Counter()

    async def add(self, key_id: str, address: str | None) -> None:
        """Records the first refusal of an address at once, and counts those that follow before the next `flush`."""
        if address in self._more or len(self._more) >= _MAX_ADDRESSES:
            self._more[address if address in self._more else None] += 1
            return
        self._more[address] = 0
        await self._audit.record(Actor(None, address), Action.KEY_REFUSED, key_id[:_MAX_ID])

    async def flush(self) -> None:
        """Records how many more there were from each address."""
        counted, self._more = self._more, Counter()
        for address, times in counted.items():
            if times:
                await self._audit.record(Actor(None, address), Action.KEY_REFUSED, times=times)
