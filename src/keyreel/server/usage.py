"""What keys have used, as JSON and as CSV."""

from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta

from pydantic import BaseModel, Field

from keyreel.server.spreadsheets import as_csv
from keyreel.store.records import DayOfUse
from keyreel.store.usage import Usage

SHOWN_DAYS = 31
"""Days of use that are shown when no first day is named."""
_EPOCH = date(1970, 1, 1)


class DayView(BaseModel):
    """What a key used on one day. Requests count when they end, files when they arrive."""

    day: date = Field(description="A day in UTC.")
    key_id: str
    name: str | None = Field(description="The key's name. Null if the key is not in the table of keys.")
    completed: int
    failed: int
    cancelled: int
    device_seconds: float = Field(description="Time on a device in all attempts, including failed ones.")
    bytes: int = Field(description="Size of the uploads, inputs and videos that arrived.")

    @classmethod
    def of(cls, used: DayOfUse) -> "DayView":
        return cls(**asdict(used) | {"day": _EPOCH + timedelta(used.day)})


class UsageView(BaseModel):
    days: list[DayView] = Field(description="The latest day first. Days without use are left out.")
    stored_bytes: dict[str, int] = Field(description="What each key with files stores now, by the key's id.")

    def csv(self) -> str:
        """Returns the days as a table."""
        return as_csv([DayView.model_fields, *(day.model_dump().values() for day in self.days)])


async def read_usage(
    usage: Usage, key_id: str | None = None, since: date | None = None, until: date | None = None
) -> UsageView:
    """Returns the use of one key, or of all keys, from day `since` to day `until`, which is today by default."""
    first, last = shown_days(since, until)
    days = await usage.days((first - _EPOCH).days, (last - _EPOCH).days, key_id)
    return UsageView(days=[DayView.of(day) for day in days], stored_bytes=await usage.stored(key_id))


def shown_days(since: date | None, until: date | None) -> tuple[date, date]:
    """Returns the first and the last day of a period that may be open."""
    last = until or datetime.now(UTC).date()
    return since or date.fromordinal(max(1, last.toordinal() - SHOWN_DAYS + 1)), last
