"""The errors that the database raises."""

from typing import Any

import asyncpg
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, NotSupportedError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

STORE_ERRORS = (DBAPIError, PoolTimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
"""Errors while the database is unavailable, busy or full. SQLAlchemy does not wrap those of connecting."""
OWN_FAULTS = (DataError, IntegrityError, NotSupportedError, ProgrammingError)
"""Those among them that are a fault of Keyreel. Trying again does not help."""


def described(error: BaseException) -> dict[str, Any]:
    """Returns what a log line says of one of the STORE_ERRORS.

    An outage repeats them with every call, each second: its lines have the reason alone. A fault of our own has its
    traceback, too.
    """
    cause = getattr(error, "orig", None) or error
    reason = (str(cause) or type(cause).__name__).partition("\n")[0]
    return {"reason": reason} | ({"exc_info": error} if isinstance(error, OWN_FAULTS) else {})
