import asyncio
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect

from keyreel.store import open_store
from keyreel.store.records import NewRequest
from keyreel.store.tables import metadata
from tests.store.steps import live_requests


def differences(connection: Connection) -> list[Any]:
    """Returns the differences between the database and the tables of the code."""
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    return list(compare_metadata(context, metadata))


def checks(connection: Connection) -> dict[str, set[tuple[str | None, str]]]:
    """Returns the check constraints of each table, which Alembic does not compare."""
    inspector = inspect(connection)
    return {
        table: {(check["name"], check["sqltext"]) for check in inspector.get_check_constraints(table)}
        for table in metadata.tables
    }


async def test_the_migrations_create_the_tables_that_the_code_expects(new_url: str) -> None:
    async with open_store(new_url) as store, store.database.write() as connection:
        assert await connection.run_sync(differences) == []
        migrated = await connection.run_sync(checks)
        await connection.run_sync(metadata.drop_all)
        await connection.run_sync(metadata.create_all)
        assert await connection.run_sync(checks) == migrated
        assert len(migrated["request"]) == 4


async def test_opening_the_store_again_keeps_its_rows(new_url: str) -> None:
    async with open_store(new_url) as store:
        new = NewRequest(endpoint="endpoint", key_id="key", input={}, seed=1)
        submitted = await store.queue.submit(new)
    async with open_store(new_url) as store:
        assert [request.id for request in await live_requests(store)] == [submitted.id]


async def test_several_gateways_can_start_at_once(new_url: str, server_url: str | None) -> None:
    async def start() -> None:
        async with open_store(new_url) as store:
            await store.requests.running()

    for _ in range(2):
        # On SQLite only one process can open the store.
        await asyncio.gather(*(start() for _ in range(4 if server_url else 1)))
