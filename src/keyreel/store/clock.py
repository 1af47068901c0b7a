"""The database's clock, the only clock that the store reads."""

from typing import Any

from sqlalchemy import Double
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class DatabaseTime(FunctionElement[float]):
    """The SQL expression of the current time in seconds since 1970. It is constant within a statement."""

    type = Double()
    inherit_cache = True  # with a plain ColumnElement in it, SQLAlchemy compiles a statement anew each time


@compiles(DatabaseTime, "sqlite")
def _sqlite(_element: DatabaseTime, _compiler: SQLCompiler, **_: Any) -> str:
    # Not unixepoch('subsec'), which needs SQLite 3.42.
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(DatabaseTime, "postgresql")
def _postgresql(_element: DatabaseTime, _compiler: SQLCompiler, **_: Any) -> str:
    # Not now(), which is the start of the transaction, even after a long wait for a lock.
    return "CAST(extract(epoch FROM statement_timestamp()) AS DOUBLE PRECISION)"
