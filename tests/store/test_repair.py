"""An SQLite file that is damaged or locked: what is said, and the way back."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from keyreel.cli import app
from keyreel.store import STORE_ERRORS, database, open_store
from keyreel.store.records import StoreError, StoreInUseError, StoreUnavailableError
from keyreel.store.repair import repair
from tests.store.steps import claim, submit

REQUESTS = 60
PAGE = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keyreel.db"


async def fill(path: Path) -> list[str]:
    """Makes a database with requests. Returns their ids."""
    async with open_store(f"sqlite:///{path}") as store:
        await store.keys.create("user")
        return [await submit(store, input={"prompt": "x" * 2000}) for _ in range(REQUESTS)]


def damage(path: Path) -> None:
    """Overwrites a page that holds some of the requests."""
    content = bytearray(path.read_bytes())
    place = content.rindex(b"x" * 1000) // PAGE * PAGE
    content[place : place + PAGE] = b"\xa5" * PAGE
    path.write_bytes(content)


@pytest.mark.slow
async def test_a_damaged_file_is_refused_and_what_can_be_read_is_rescued(path: Path) -> None:
    ids = await fill(path)
    damage(path)
    damaged = path.read_bytes()
    with pytest.raises(StoreUnavailableError, match=r"keyreel\.db is damaged \(.*\)\. `keyreel repair` saves"):
        async with open_store(f"sqlite:///{path}"):
            pass
    repaired = repair(path)
    assert repaired.damaged.read_bytes() == damaged
    assert repaired.rows["api_key"] == 1
    async with open_store(f"sqlite:///{path}") as store:
        found = list(await store.requests.queue())
        assert REQUESTS - 5 <= len(found) < REQUESTS
        assert found == [request for request in ids if request in found]
        assert (await claim(store)).id == found[0]
        await submit(store)
    assert repair(path).damaged.name == "keyreel.db.damaged-2"


@pytest.mark.parametrize("content", [b"this is no database" * 1000, b""])
def test_a_file_without_rows_stays_where_it_is(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    result = CliRunner().invoke(app, ["repair"], env={"KEYREEL_DATA_DIR": str(path.parent)})
    assert result.exit_code == 1
    assert "Nothing can be rescued" in result.output
    assert path.read_bytes() == content


@pytest.mark.slow
async def test_the_command_says_what_it_rescued(path: Path) -> None:
    await fill(path)
    result = CliRunner().invoke(app, ["repair"], env={"KEYREEL_DATA_DIR": str(path.parent)})
    assert result.exit_code == 0
    assert f"{REQUESTS:8} request\n" in result.output
    assert f"The damaged file is {path}.damaged-1." in result.output


async def test_only_a_file_that_no_server_uses_is_repaired(path: Path) -> None:
    with pytest.raises(StoreError, match="There is no database"):
        repair(path)
    async with open_store(f"sqlite:///{path}"):
        with pytest.raises(StoreInUseError):
            repair(path)


@pytest.mark.slow
async def test_who_locks_the_file_is_to_let_it_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_BUSY_TIMEOUT", 0.1)
    await fill(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreUnavailableError, match=r"database is locked\. Another program has it open, .*: close"):
            async with open_store(f"sqlite:///{path}"):
                pass
        other.execute("COMMIT")
    async with open_store(f"sqlite:///{path}") as store:
        assert len(await store.requests.queue()) == REQUESTS


async def test_a_store_goes_on_when_a_lock_is_gone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_BUSY_TIMEOUT", 0.1)
    async with open_store(f"sqlite:///{path}") as store:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(STORE_ERRORS, match="database is locked"):
                await submit(store)
            assert await store.requests.queue() == {}, "reading works meanwhile, and nothing was half written"
            other.execute("ROLLBACK")
        accepted = await submit(store)
        assert (await claim(store)).id == accepted
