"""A PostgreSQL server that is away: what the store raises, and that it recovers alone."""

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from keyreel.store import STORE_ERRORS, Store, open_store
from keyreel.store.records import StoreUnavailableError
from tests.store.postgres import find_programs, restartable_server


@pytest.mark.slow
async def test_calls_fail_with_a_store_error_and_work_again_after_a_restart() -> None:
    programs = find_programs()
    if not programs:
        pytest.skip("PostgreSQL is not installed")
    with restartable_server(programs) as server:
        async with open_store(server.url) as store:
            assert await store.requests.running() == []
            server.stop()
            for _ in range(2):  # the first meets an open connection, the second has to connect
                with pytest.raises(STORE_ERRORS):
                    await store.requests.running()
                with pytest.raises(STORE_ERRORS):
                    await store.keys.create("a")
            server.start()
            assert await store.requests.running() == []


@pytest.mark.parametrize("url", ["postgresql://keyreel:SECRET@127.0.0.1:1/keyreel", "sqlite:////dev/null/keyreel.db"])
async def test_a_database_that_cannot_be_opened_is_named_without_its_password(url: str) -> None:
    with pytest.raises(StoreUnavailableError, match="Cannot open the database") as caught:
        async with open_store(url):
            pass
    assert "SECRET" not in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "keyreel.db").write_bytes(b"this is no database" * 1000)
    with pytest.raises(StoreUnavailableError, match=r"keyreel\.db: file is not a database"):
        async with open_store(f"sqlite:///{tmp_path / 'keyreel.db'}"):
            pass


@pytest.mark.slow
def test_the_server_says_so_at_its_start(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "keyreel", "serve", "--port", "0", "--data-dir", str(tmp_path)]
    environment = {"KEYREEL_DATABASE_URL": "postgresql://127.0.0.1:1/keyreel", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("Cannot open the database postgresql://127.0.0.1:1/keyreel: ")
    assert "Traceback" not in done.stderr


async def test_tables_of_a_newer_release_can_be_used(store: Store, url: str) -> None:
    revision = await store.database.revision()
    async with store.database.write() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    try:
        if url.startswith("postgresql"):  # SQLite: the file belongs to the store that has it open
            async with open_store(url) as newer:
                assert await newer.keys.list() == []
    finally:
        async with store.database.write() as connection:
            await connection.execute(text("UPDATE alembic_version SET version_num = :old"), {"old": revision})
