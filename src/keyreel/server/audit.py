"""The audit log as JSON and as CSV."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from keyreel.server.spreadsheets import as_csv
from keyreel.store.audit import Audit
from keyreel.store.records import DAY


class EntryView(BaseModel):
    """An entry of the audit log."""

    model_config = ConfigDict(from_attributes=True)

    seq: int
    time: float = Field(description="Seconds since 1970.")
    key_id: str | None = Field(
        description="Who did it. `local` is the command line, `server` the server itself. Null for a refused key."
    )
    name: str | None = Field(description="The key's name. Null if the key is not in the table of keys.")
    address: str | None = Field(description="Where the call came from. Null without a call over HTTP.")
    action: str
    target: str | None = Field(description="Id of the key, request or webhook call.")
    detail: dict[str, Any] | None

    @property
    def row(self) -> list[object]:
        """The fields for a table."""
        moment = datetime.fromtimestamp(self.time, UTC).isoformat(timespec="seconds")
        return [moment, self.key_id, self.name, self.address, self.action, self.target, self.description]

    @property
    def description(self) -> str:
        return "" if self.detail is None else json.dumps(self.detail)


COLUMNS = ("time", "key_id", "name", "address", "action", "target", "detail")


async def read_audit(
    audit: Audit, since: date | None, until: date | None, before: int | None, limit: int
) -> list[EntryView]:
    """Returns the newest entries of the days from `since` to `until`. before: only those with a smaller `seq`."""
    first = _start(since) if since else None
    last = _start(until) + DAY if until else None
    entries = await audit.entries(limit=limit, before=before, since=first, until=last)
    return [EntryView.model_validate(entry) for entry in entries]


async def audit_pages(audit: Audit, first: date, last: date) -> AsyncIterator[list[EntryView]]:
    """Yields the entries of the days from `first` to `last`, the newest first, a page at a time."""
    async for page in audit.pages(_start(first), _start(last) + DAY):
        yield [EntryView.model_validate(entry) for entry in page]


async def audit_csv(audit: Audit, first: date, last: date) -> AsyncIterator[str]:
    """Yields a table of these entries, a page at a time: a line at a time costs several times as much."""
    yield as_csv([COLUMNS])
    async for page in audit_pages(audit, first, last):
        yield as_csv(entry.row for entry in page)


def _start(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
