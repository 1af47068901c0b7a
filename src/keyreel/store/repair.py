"""Rescues what can be read from a damaged SQLite file, row by row."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine

from keyreel.store.lockfile import exclusive_lock
from keyreel.store.migrate import migrate
from keyreel.store.records import StoreError
from keyreel.store.tables import metadata

_PARTS = ("-wal", "-shm", "")
_GAP = 10_000
"""Row numbers to try in a table whose end cannot be read."""


@dataclass(frozen=True, slots=True)
class Repaired:
    """rows: how many could be read of each table. damaged: where the damaged file is now."""

    rows: Mapping[str, int]
    damaged: Path


def repair(path: Path) -> Repaired:
    """Replaces a damaged file by a new one with the rows that can be read. Raises StoreError."""
    if not path.is_file():
        raise StoreError(f"There is no database {path}.")
    with exclusive_lock(path):
        rescued = path.with_name(f"{path.name}.rescued")
        rescued.unlink(missing_ok=True)
        _create(rescued)
        rows = _copy(path, rescued)
        if not any(rows.values()):
            rescued.unlink()
            raise StoreError(
                f"Nothing can be rescued from {path}. Restore a backup, or move the file away to start with an empty "
                "database. Videos that were made stay in the object store."
            )
        damaged = _free_name(path)
        for part in _PARTS:
            if (file := Path(f"{path}{part}")).exists():
                file.rename(f"{damaged}{part}")
        rescued.rename(path)
    return Repaired(rows, damaged)


def _create(path: Path) -> None:
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        migrate(connection)
    engine.dispose()


def _copy(path: Path, rescued: Path) -> dict[str, int]:
    """Copies all rows that can be read. Returns the number of each table's."""
    rows = {}
    # Read only, or closing the file would change it.
    readable = f"{path.resolve().as_uri()}?mode=ro"
    with (
        closing(sqlite3.connect(readable, uri=True)) as source,
        closing(sqlite3.connect(rescued)) as target,
        target,
    ):
        for table in metadata.sorted_tables:
            rows[table.name] = _copy_table(source, target, table.name)
        for name in ("event", "delivery", "request_input"):
            target.execute(f"DELETE FROM {name} WHERE request_id NOT IN (SELECT id FROM request)")  # noqa: S608
    return rows


def _copy_table(source: sqlite3.Connection, target: sqlite3.Connection, table: str) -> int:
    try:
        columns = sorted(_columns(source, table) & _columns(target, table))
    except sqlite3.DatabaseError:
        return 0
    if not columns:
        return 0
    # Damage may have made two rows of one, or broken what a table demands of its rows.
    insert = f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608
    return sum(target.execute(insert, row).rowcount for row in _readable_rows(source, table, columns))


def _columns(database: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in database.execute(f"PRAGMA table_info({table})")}


def _readable_rows(source: sqlite3.Connection, table: str, columns: list[str]) -> Iterator[tuple[Any, ...]]:
    """Yields the rows in their order, without those that are damaged."""
    statement = f"SELECT rowid, {', '.join(columns)} FROM {table} WHERE rowid > ? ORDER BY rowid"  # noqa: S608
    last, end = 0, None
    while end is None or last < end:
        try:
            for number, *row in source.execute(statement, (last,)):
                last = number
                yield tuple(row)
            return
        except sqlite3.DatabaseError:
            end = end or _last_row(source, table) or last + _GAP
            last += 1


def _last_row(source: sqlite3.Connection, table: str) -> int | None:
    try:
        number: int | None = source.execute(f"SELECT max(rowid) FROM {table}").fetchone()[0]  # noqa: S608
    except sqlite3.DatabaseError:
        return None
    return number


def _free_name(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.damaged-{number}") for number in count(1))
    return next(name for name in names if not name.exists())
