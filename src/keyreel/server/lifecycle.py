"""Parses fal's lifecycle headers: how long a file is kept and who may read it."""

from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from keyreel.fal.outcomes import JsonObject
from keyreel.server.errors import PlatformError

Decision = Literal["hide", "forbid", "allow"]


class Rule(BaseModel):
    user: str
    """The id of a key."""
    decision: Decision


class Acl(BaseModel):
    """Who may read a file, besides its owner."""

    default: Decision | None = None
    rules: tuple[Rule, ...] | None = None


class Lifecycle(BaseModel):
    """The content of a lifecycle header."""

    expiration_duration_seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    initial_acl: Acl | None = None

    @property
    def lifetime(self) -> float | None:
        """Seconds, or None for no limit. As on fal, 0 also means no limit."""
        return self.expiration_duration_seconds or None

    @property
    def acl(self) -> JsonObject | None:
        """The access rules as JSON, or None when the header has none."""
        return self.initial_acl.model_dump(mode="json", exclude_none=True) if self.initial_acl else None


def parse_lifecycle(header: str | None) -> Lifecycle:
    """Parses a header. Answers 400 when it is invalid, so that a mistake never makes a file public."""
    try:
        return Lifecycle.model_validate_json(header) if header else Lifecycle()
    except ValidationError as error:
        raise PlatformError(f"The object lifecycle header is invalid: {error.errors()[0]['msg']}.") from None
