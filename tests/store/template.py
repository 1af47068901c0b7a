"""A SQLite file with tables but no rows: copying it is faster than running the migrations for each test."""

import tempfile
from functools import cache
from pathlib import Path

from sqlalchemy import create_engine

from keyreel.store.migrate import migrate


def put_database(folder: Path) -> str:
    """Puts a migrated database into the folder as `keyreel.db`, unless there is one. Returns its URL."""
    path = folder / "keyreel.db"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_template())
    return f"sqlite:///{path}"


@cache
def _template() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "keyreel.db"
        engine = create_engine(f"sqlite:///{path}")
        with engine.begin() as connection:
            migrate(connection)
        engine.dispose()
        return path.read_bytes()
