"""What can go wrong, in the words and the shape that a caller gets to see."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Loc = tuple[str | int, ...]
"""Where in the request: `("images", 0, "image_url")`. The server puts "body" in front."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a request, as fal's model errors describe it.

    `type` is the machine-readable name (`file_too_large`, `image_load_error`, ...), `message` a sentence that says
    what is wrong and what to do, `context` the figures that belong to the type (`max_size`, `min_width`, ...).
    """

    loc: Loc
    message: str
    type: str
    context: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        where = ".".join(str(part) for part in self.loc)
        return f"{where}: {self.message}" if where else self.message


class KeyreelError(Exception):
    """Base of every error that Keyreel raises on purpose."""


class RequestError(KeyreelError):
    """The request itself is at fault: it fails the same way on every machine and must not be retried."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems

    @classmethod
    def at(cls, loc: Loc, message: str, type: str, **context: object) -> "RequestError":  # noqa: A002
        return cls(Problem(loc, message, type, context))


class ModelError(KeyreelError):
    """A model cannot be found, read or run here. The message says what to do about it."""
