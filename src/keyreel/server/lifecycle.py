"""How long a file is kept and who may read it, as fal's lifecycle headers say."""

from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from keyreel.server.errors import PlatformError
from keyreel.store.records import JsonObject

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
    expiration_duration_seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    initial_acl: Acl | None = None

    @property
    def lifetime(self) -> float | None:
        """Seconds. fal, too, takes 0 for ever."""
        return self.expiration_duration_seconds or None

    @property
    def acl(self) -> JsonObject | None:
        return self.initial_acl.model_dump(mode="json", exclude_none=True) if self.initial_acl else None


def parse_lifecycle(header: str | None) -> Lifecycle:
    """Answers 400 when it cannot be read: a slip shall not make a file public."""
    try:
        return Lifecycle.model_validate_json(header) if header else Lifecycle()
    except ValidationError as error:
        raise PlatformError(f"The object lifecycle is not valid: {error.errors()[0]['msg']}.") from None
