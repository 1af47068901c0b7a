"""`keyreel migrate`, on SQLite."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, inspect, text
from typer.testing import CliRunner, Result

from keyreel.cli import app
from keyreel.store import migrations
from keyreel.store.lockfile import exclusive_lock
from keyreel.store.tables import metadata

(FOLDER,) = migrations.__path__
NEWEST = max(path.name[:4] for path in Path(FOLDER).glob("versions/[0-9]*.py"))
DONE = f"The tables are at revision {NEWEST}.\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data folder of an installation."""
    return tmp_path / "data"


def migrate(data: Path) -> Result:
    return CliRunner().invoke(app, ["migrate"], env={"KEYREEL_DATA_DIR": str(data)})


@contextmanager
def database(data: Path) -> Iterator[Connection]:
    data.mkdir(exist_ok=True)
    engine = create_engine(f"sqlite:///{data / 'keyreel.db'}")
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def columns(connection: Connection) -> dict[str, set[str]]:
    inspector = inspect(connection)
    tables = set(inspector.get_table_names()) - {"alembic_version"}
    return {table: {column["name"] for column in inspector.get_columns(table)} for table in tables}


def test_migrating_again_changes_nothing(data: Path) -> None:
    assert [migrate(data).stdout for _ in range(2)] == [DONE, DONE]


def test_the_tables_of_the_first_release_are_brought_up_to_date(data: Path) -> None:
    expected = {table.name: {column.name for column in table.columns} for table in metadata.sorted_tables}
    with database(data) as connection:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", FOLDER)
        command.upgrade(config, "0001")
        assert columns(connection).keys() < expected.keys()
    assert migrate(data).stdout == DONE
    with database(data) as connection:
        assert columns(connection) == expected


def test_the_tables_of_a_newer_release_are_left_alone(data: Path) -> None:
    migrate(data)
    with database(data) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert migrate(data).stdout == "The tables are at revision 9999.\n"


def test_a_database_in_use_is_an_error_of_one_line(data: Path) -> None:
    data.mkdir()
    with exclusive_lock(data / "keyreel.db"):
        result = migrate(data)
    assert result.exit_code == 1
    assert "keyreel.db is in use by process" in result.stderr
    assert result.stderr.count("\n") == 1
