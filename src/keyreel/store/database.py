"""Connects to SQLite or PostgreSQL and hides the differences between the two."""

import asyncio
import inspect
import json
import sqlite3
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import asyncpg
from sqlalchemy import Connection, event, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.sql.expression import ColumnElement

from keyreel.store.changes import Changes
from keyreel.store.errors import STORE_ERRORS
from keyreel.store.lockfile import exclusive_lock
from keyreel.store.migrate import migrate
from keyreel.store.notify import exchange_notifications
from keyreel.store.records import NO_LIMITS, StoreUnavailableError, WorkerNameTakenError

CONNECT_TIMEOUT = 5.0
"""Seconds to connect to PostgreSQL."""
COMMAND_TIMEOUT = 15.0
"""Seconds for one statement on PostgreSQL. A cut network drops packets without an error."""
_SERVER_SETTINGS = {
    "application_name": "keyreel",
    # The server ends the transaction of a process that was stopped in the middle, and with it its locks.
    "idle_in_transaction_session_timeout": "5s",
    # The server closes the connections of a vanished machine after a minute, and with them its locks.
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}
_CONNECTIONS = 5
"""Connections in each of the two pools to PostgreSQL, for reading and for writing."""
_BUSY_TIMEOUT = 10.0
"""Seconds that SQLite waits for a lock."""
_READERS = 4
_OPTIONS = inspect.signature(asyncpg.connect).parameters.keys()
"""What may follow the ? in the URL."""
_REPAIR = "`keyreel repair` saves what can be read into a new file and keeps this one."
_HINTS = {
    sqlite3.SQLITE_BUSY: "Another program has it open, such as a database browser or a backup: close it.",
    sqlite3.SQLITE_CORRUPT: _REPAIR,
    sqlite3.SQLITE_NOTADB: _REPAIR,
}
"""What to do, by SQLite's error code."""

# Statements appear in logs when they fail. Their values, such as prompts, do not.
_create_engine = partial(
    create_async_engine, json_serializer=partial(json.dumps, allow_nan=False), hide_parameters=True
)


class Database:
    """Opens transactions, holds the clock and signals changes.

    direct: opens connections to PostgreSQL outside the pools. None: SQLite.
    """

    def __init__(
        self, writer: AsyncEngine, reader: AsyncEngine, now: ColumnElement[float], direct: AsyncEngine | None = None
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._direct = direct
        self._names: set[str] = set()
        self.now = now
        self.default_limits = NO_LIMITS
        """What holds for keys of users that have no limits of their own."""
        self.changes = Changes()

    @property
    def is_shared(self) -> bool:
        """Whether other processes may change the rows, too."""
        return self._direct is not None

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """Opens a transaction, which is committed at the end of the block."""
        with _statements_ended():
            async with self._writer.begin() as connection:
                yield connection

    @asynccontextmanager
    async def write_once(self) -> AsyncIterator[AsyncConnection]:
        """Opens a connection for a single statement that writes. On SQLite it is a transaction."""
        if self._direct is None:
            async with self.write() as connection:
                yield connection
            return
        # The reader's connections commit each statement, which saves the round trips of BEGIN and COMMIT.
        async with self.read() as connection:
            yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Opens a connection for reading. On SQLite it is a transaction that cannot write."""
        with _statements_ended():
            async with self._reader.begin() as connection:
                yield connection

    async def serialise(self, connection: AsyncConnection, name: str) -> None:
        """Lets one transaction of this name run at a time. SQLite needs no lock for that: it has one writer."""
        if connection.dialect.name == "postgresql":
            await connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})

    async def revision(self) -> str:
        """Returns the revision of the tables."""
        async with self.read() as connection:
            return str(await connection.scalar(text("SELECT version_num FROM alembic_version")))

    @asynccontextmanager
    async def hold_name(self, name: str) -> AsyncIterator[None]:
        """Keeps a name for this block, as long as its connection lives. Raises WorkerNameTakenError."""
        if name in self._names:
            raise WorkerNameTakenError(name)
        self._names.add(name)
        try:
            if self._direct is None:
                yield  # no other process has the database
                return
            async with self._direct.connect() as connection:
                try:
                    if not await _try_lock(connection, name):
                        raise WorkerNameTakenError(name)
                    yield
                finally:
                    await connection.invalidate()
        finally:
            self._names.discard(name)


@contextmanager
def _statements_ended() -> Iterator[None]:
    """Lets the block end before a client that goes away cancels its call, and frees what other cancellations leave.

    A connection whose statement is cancelled is closed and opened anew, which costs more than the statement. anyio,
    which the web framework uses, cancels again and again, also while the connection is being closed.
    The traceback of a cancelled task keeps SQLite's cursor alive, and with it the transaction: every other write would
    wait as long as somebody keeps the task.
    """
    try:
        with anyio.CancelScope(shield=True):
            yield
    except asyncio.CancelledError as error:
        traceback.clear_frames(error.__traceback__)
        raise


async def _try_lock(connection: AsyncConnection, name: str) -> bool:
    """Takes a lock that lasts until the connection is closed. Returns False if another connection has it."""
    connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
    lock = text("SELECT pg_try_advisory_lock(hashtextextended(:name, 0))")
    return bool(await connection.scalar(lock, {"name": f"worker {name}"}))


@asynccontextmanager
async def connect(address: str, now: ColumnElement[float]) -> AsyncIterator[Database]:
    """Opens the database at `address` (`sqlite:///file` or `postgresql://...`) and migrates its tables.

    Raises StoreInUseError when another process has the SQLite file open, StoreUnavailableError when the database
    cannot be opened.
    """
    url = _parsed(address)
    match url.get_backend_name():
        case "sqlite":
            opened = _sqlite(url.set(drivername="sqlite+aiosqlite"), now)
        case "postgresql" | "postgres":
            opened = _postgresql(url.set(drivername="postgresql+asyncpg"), now)
        case other:
            raise StoreUnavailableError(f"KEYREEL_DATABASE_URL begins with postgresql://, not with {other}://.")
    async with AsyncExitStack() as stack:
        try:
            database = await stack.enter_async_context(opened)
        except STORE_ERRORS as error:
            raise StoreUnavailableError(f"Cannot open the database {url}: {_description(error)}") from error
        yield database


def _parsed(address: str) -> URL:
    """Parses the URL. libpq's `sslmode`, which providers and pg_dump use, has another name in our driver.

    Raises StoreUnavailableError, without the address: it may hold a password.
    """
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        raise StoreUnavailableError(
            "KEYREEL_DATABASE_URL must have the form postgresql://user:password@host:port/database. "
            "In the password, write / as %2F, @ as %40 and : as %3A."
        ) from None
    if "sslmode" in url.query:
        url = url.difference_update_query(["sslmode"]).update_query_dict({"ssl": url.query["sslmode"]})
    if unknown := url.query.keys() - _OPTIONS:
        raise StoreUnavailableError(
            f"KEYREEL_DATABASE_URL has options that Keyreel does not know: {', '.join(sorted(unknown))}."
        )
    return url


def _description(error: BaseException) -> str:
    """Returns what is said of the driver's error, without SQLAlchemy's statement and link, and what to do."""
    cause = getattr(error, "orig", None) or error
    first_line = (str(cause) or type(cause).__name__).partition("\n")[0]
    hint = _HINTS.get(getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_OK))
    return f"{first_line}. {hint}" if hint else first_line


@asynccontextmanager
async def _postgresql(url: URL, now: ColumnElement[float]) -> AsyncIterator[Database]:
    arguments = {"timeout": CONNECT_TIMEOUT, "server_settings": _SERVER_SETTINGS}
    # A migration, or waiting for that of another process, may take longer than a command.
    migrator = _create_engine(url, poolclass=NullPool, connect_args=arguments)
    async with migrator.begin() as connection:
        await connection.run_sync(migrate)
    arguments |= {"command_timeout": COMMAND_TIMEOUT}
    direct = _create_engine(url, poolclass=NullPool, connect_args=arguments)
    pool = partial(
        _create_engine,
        url,
        pool_pre_ping=True,
        pool_size=_CONNECTIONS,
        max_overflow=0,
        pool_timeout=COMMAND_TIMEOUT,
        connect_args=arguments,
    )
    # A read is one statement. Without a transaction around it, it is one round trip in place of three.
    reader = pool(isolation_level="AUTOCOMMIT")
    # Its connections are tested outside of a transaction, too: only what runs in `begin` has one.
    writer = pool(isolation_level="AUTOCOMMIT").execution_options(isolation_level="READ COMMITTED")
    database = Database(writer, reader, now, direct)
    exchange = asyncio.create_task(exchange_notifications(direct, database.changes))
    try:
        yield database
    finally:
        exchange.cancel()
        await asyncio.wait([exchange])
        await reader.dispose()
        await writer.dispose()


@asynccontextmanager
async def _sqlite(url: URL, now: ColumnElement[float]) -> AsyncIterator[Database]:
    """Opens SQLite for one process with one writer.

    SQLite before 3.51.3 can damage a write-ahead log that has several writers.
    """
    if not url.database or url.database == ":memory:":
        raise ValueError("The store needs a file: a database in memory is lost at a restart.")
    with exclusive_lock(Path(url.database)):
        arguments = {"timeout": _BUSY_TIMEOUT}
        writer = _create_engine(url, pool_size=1, max_overflow=0, connect_args=arguments)
        reader = _create_engine(url, pool_size=_READERS, max_overflow=0, connect_args=arguments)
        _configure(writer, "BEGIN IMMEDIATE", "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON")
        _configure(reader, "BEGIN", "query_only = ON")
        try:
            async with writer.begin() as connection:
                await _check(connection, url)
                await connection.run_sync(migrate)
            yield Database(writer, reader, now)
        finally:
            await reader.dispose()
            await writer.dispose()


async def _check(connection: AsyncConnection, url: URL) -> None:
    """Raises StoreUnavailableError if the file is damaged: who goes on writing to it loses more."""
    found = str(await connection.scalar(text("PRAGMA quick_check(1)")))
    if found != "ok":
        damage = " ".join(found.split())
        raise StoreUnavailableError(f"The database {url.database} is damaged ({damage}). {_REPAIR}")


def _configure(engine: AsyncEngine, begin: str, *pragmas: str) -> None:
    """Sets the statement that begins a transaction and the pragmas of each connection."""

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        # Autocommit in the driver: `on_begin` starts the transactions.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)
