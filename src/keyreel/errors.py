"""The errors that callers see, in the form of fal's model errors."""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")

Loc = tuple[str | int, ...]
"""A location in the request, such as `("images", 0, "image_url")`. The server prepends "body"."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem with a request, with the fields of fal's model errors.

    `type` is machine-readable (`file_too_large`, `image_load_error`, ...), `message` says what is wrong and what to do,
    `context` holds the values that belong to the type (`max_size`, `min_width`, ...).
    """

    loc: Loc
    message: str
    type: str
    context: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        where = ".".join(str(part) for part in self.loc)
        return f"{where}: {self.message}" if where else self.message


class KeyreelError(Exception):
    """Base class of all errors that Keyreel raises deliberately."""


class RequestError(KeyreelError):
    """The request is invalid. It fails the same way on every machine and must not be retried."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems

    @classmethod
    def at(cls, loc: Loc, message: str, type: str, **context: object) -> "RequestError":  # noqa: A002
        """Returns an error with one problem."""
        return cls(Problem(loc, message, type, context))


class ModelError(KeyreelError):
    """A model cannot be found, read or run here. The message says what to do about it."""


async def gather(awaitables: Iterable[Awaitable[T]]) -> list[T]:
    """Awaits all and returns their results. If some raise RequestError, raises one RequestError with all problems."""
    results = await asyncio.gather(*awaitables, return_exceptions=True)
    problems: list[Problem] = []
    values: list[T] = []
    for result in results:
        match result:
            case RequestError():
                problems.extend(result.problems)
            case BaseException():
                raise result
            case _:
                values.append(result)
    if problems:
        raise RequestError(*problems)
    return values
