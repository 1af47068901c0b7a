"""docs/runbook.md: its SQL and its commands for PostgreSQL work, and its figures are those of the code."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url, text

from keyreel.store import Store, open_store
from keyreel.store.database import _CONNECTIONS
from tests.deploy.files import ROOT
from tests.store.postgres import new_database
from tests.store.steps import claim, live_requests, submit

TEXT = (ROOT / "docs" / "runbook.md").read_text()
BLOCK = re.compile(r"^( *)```(sql|sh)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
DUMP, RESTORE = (command for _, kind, command in BLOCK.findall(TEXT) if kind == "sh" and "pg_" in command)
NEW_ROLE, END_ROLE, FORGET = (sql for _, kind, sql in BLOCK.findall(TEXT) if kind == "sql")


@pytest.fixture
def another(server: str, tmp_path: Path) -> Iterator[str]:
    """The URL of another empty database."""
    with new_database(server, tmp_path) as url:
        yield url


def run(command: str, url: str, folder: Path) -> None:
    environment = os.environ | {"KEYREEL_DATABASE_URL": url}
    subprocess.run(["sh", "-eu", "-c", command], cwd=folder, env=environment, check=True, capture_output=True)


async def execute(store: Store, sql: str) -> None:
    async with store.database.write() as connection:
        for statement in filter(str.strip, sql.split(";")):
            await connection.execute(text(statement))


async def test_a_restored_database_has_what_the_dump_had(database: str, another: str, tmp_path: Path) -> None:
    async with open_store(database) as store:
        running, waiting = await submit(store), await submit(store)
        await claim(store)
        run(DUMP, database, tmp_path)
        lost = await submit(store)
    run(RESTORE, another, tmp_path)
    async with open_store(another) as store:
        found = {status.id for status in await live_requests(store)}
        assert found == {running, waiting}
        assert await store.requests.status(lost) is None


async def test_a_second_role_takes_over(database: str) -> None:
    async with open_store(database) as store:
        await submit(store)
        await execute(store, NEW_ROLE)
    other = make_url(database).set(username="keyreel_2").render_as_string(hide_password=False)
    async with open_store(other) as store:
        await submit(store)
        await execute(store, END_ROLE)
        async with store.database.read() as connection:
            assert await connection.scalar(text("SELECT current_user")) == "keyreel", "new tables have the same owner"


async def test_a_new_secret_is_accepted_once_the_old_one_is_forgotten(database: str) -> None:
    async with open_store(database) as store:
        assert await store.installation.check_fingerprint("old")
        assert not await store.installation.check_fingerprint("new")
        await execute(store, FORGET)
        assert await store.installation.check_fingerprint("new")


def test_connections_are_counted_as_the_code_opens_them() -> None:
    """A pool for reading, a pool for writing, and the connection on which changes are heard of."""
    each = 2 * _CONNECTIONS + 1
    assert f"connections = {each} x gateways + {each} x worker processes + devices" in TEXT
    assert f"{_CONNECTIONS} connections for reading, {_CONNECTIONS} for writing" in TEXT
    assert f"come to {3 * each + 20 * (each + 1)} and" in TEXT
