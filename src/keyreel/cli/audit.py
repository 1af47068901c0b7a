"""`keyreel audit`: shows the audit log, through the server if it runs, else from its database."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Annotated
from urllib.parse import urlencode

import typer
from rich.console import Console
from rich.table import Column, Table

from keyreel.cli.keys import DAY, DataDir, server_settings
from keyreel.cli.local_server import LocalServer
from keyreel.cli.serve import errors_reported
from keyreel.files.secrets import make_private
from keyreel.server.audit import COLUMNS, EntryView, audit_pages
from keyreel.server.routes.operate import MAX_PAGE
from keyreel.server.spreadsheets import as_csv
from keyreel.server.startup import database_url
from keyreel.server.usage import SHOWN_DAYS, shown_days
from keyreel.settings import Settings
from keyreel.store import open_store


def audit(
    since: Annotated[
        datetime | None, typer.Option(formats=[DAY], help=f"The first day, in UTC. Default: {SHOWN_DAYS} days in all.")
    ] = None,
    until: Annotated[datetime | None, typer.Option(formats=[DAY], help="The last day, in UTC. Default: today.")] = None,
    as_table: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Show who created and revoked keys, signed in, cancelled and deleted, the newest first."""
    days = shown_days(since.date() if since else None, until.date() if until else None)
    with errors_reported():
        entries = list(_entries(server_settings(data_dir), *days))
    if as_table:
        typer.echo(as_csv([COLUMNS, *(entry.row for entry in entries)]), nl=False)
    else:
        Console().print(_table(entries))


def _entries(settings: Settings, first: date, last: date) -> Iterator[EntryView]:
    make_private(settings.data_dir)
    server = LocalServer.find(settings.data_dir)
    if server and server.answers():
        yield from _of_server(server, first, last)
    else:
        yield from asyncio.run(_of_database(database_url(settings), first, last))


def _of_server(server: LocalServer, first: date, last: date) -> Iterator[EntryView]:
    query = {"since": str(first), "until": str(last), "limit": str(MAX_PAGE)}
    while page := server.call("GET", f"/api/operate/audit?{urlencode(query)}"):
        yield from map(EntryView.model_validate, page)
        query["before"] = str(page[-1]["seq"])


async def _of_database(url: str, first: date, last: date) -> list[EntryView]:
    async with open_store(url) as store:
        return [entry async for page in audit_pages(store.audit, first, last) for entry in page]


def _table(entries: list[EntryView]) -> Table:
    columns = (Column(each, overflow="fold") for each in ("Who", "Address", "What", "Target", "Detail"))
    table = Table("Time", *columns, box=None, pad_edge=False)
    for entry in entries:
        moment = f"{datetime.fromtimestamp(entry.time, UTC):%Y-%m-%d %H:%M:%S}"
        who = entry.name or entry.key_id or ""
        table.add_row(moment, who, entry.address, entry.action, entry.target, entry.description)
    return table
