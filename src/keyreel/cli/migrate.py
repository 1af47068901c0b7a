"""`keyreel migrate`: brings the database's tables up to date before a new release starts."""

import asyncio

import typer

from keyreel.cli.serve import errors_reported
from keyreel.files.secrets import make_private
from keyreel.server.startup import database_url
from keyreel.settings import Settings
from keyreel.store import open_store


def migrate() -> None:
    """Bring the database's tables up to date.

    Servers and workers do so when they start, too. Tables only grow: older releases go on working with them.
    """
    with errors_reported():
        typer.echo(f"The tables are at revision {asyncio.run(_migrate(Settings()))}.")


async def _migrate(settings: Settings) -> str:
    make_private(settings.data_dir)
    async with open_store(database_url(settings)) as store:
        return await store.database.revision()
