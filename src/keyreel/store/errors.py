"""The errors of a database that does not answer."""

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

STORE_ERRORS = (DBAPIError, PoolTimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
"""Errors while the database is unavailable, busy or full. SQLAlchemy does not wrap those of connecting."""
