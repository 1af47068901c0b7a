"""`keyreel keys`: manages API keys, through the server if it runs, else in its database."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Protocol, TypeVar
from urllib.parse import quote

import typer
from rich.console import Console
from rich.table import Column, Table

from keyreel.cli.local_server import LocalServer
from keyreel.errors import KeyreelError
from keyreel.files.secrets import make_private
from keyreel.server.startup import database_url
from keyreel.settings import Settings
from keyreel.store import open_store
from keyreel.store.keys import Keys
from keyreel.store.records import Key, NewKey

T = TypeVar("T")

DataDir = Annotated[Path | None, typer.Option(help="The server's data folder.")]

keys = typer.Typer(help="Manage the API keys of the server.", no_args_is_help=True)


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    admin: Annotated[bool, typer.Option("--admin", help="Allow the key to manage keys and see all requests.")] = False,
    max_requests: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of waiting and running requests. Default: no limit.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Create a key and print it. It cannot be shown again."""
    with _key_manager(data_dir) as manager:
        new = manager.create(name, admin, max_requests)
    typer.echo(f"{new.key.id}:{new.secret}")


@keys.command("list")
def list_keys(data_dir: DataDir = None) -> None:
    """List the keys, without their secrets."""
    with _key_manager(data_dir) as manager:
        listed = manager.list()
    # In 80 columns, ids stay on one line and the other columns wrap.
    others = (Column(title, overflow="fold") for title in ("Name", "Admin", "At once", "Created", "Revoked"))
    table = Table(Column("Id", no_wrap=True), *others, box=None, pad_edge=False)
    for key in listed:
        at_once = str(key.max_requests or "")
        table.add_row(key.id, key.name, "yes" if key.admin else "", at_once, _date(key.created), _date(key.revoked))
    Console().print(table)


@keys.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="Id of the key, the part before the colon.")], data_dir: DataDir = None
) -> None:
    """Revoke a key. The server refuses it from now on."""
    with _key_manager(data_dir) as manager:
        manager.revoke(key_id)
    typer.echo(f"{key_id} is revoked.")


class KeyManager(Protocol):
    """Creates, revokes and lists keys."""

    def create(self, name: str, admin: bool, max_requests: int | None) -> NewKey: ...
    def revoke(self, key_id: str) -> None: ...
    def list(self) -> list[Key]: ...


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """Manages keys through the running server, which applies changes at once."""

    server: LocalServer

    def create(self, name: str, admin: bool, max_requests: int | None) -> NewKey:
        body = {"name": name, "admin": admin, "max_requests": max_requests}
        answer = self.server.call("POST", "/keys", body)
        secret = answer.pop("secret")
        return NewKey(Key(**answer), secret)

    def revoke(self, key_id: str) -> None:
        self.server.call("DELETE", f"/keys/{quote(key_id, safe='')}")

    def list(self) -> list[Key]:
        return [Key(**key) for key in self.server.call("GET", "/keys")]


@dataclass(frozen=True, slots=True)
class DatabaseKeys:
    """Manages keys in the database at `url`, while no server runs."""

    url: str

    def create(self, name: str, admin: bool, max_requests: int | None) -> NewKey:
        return self._do(lambda stored: stored.create(name, admin=admin, max_requests=max_requests))

    def revoke(self, key_id: str) -> None:
        if not self._do(lambda stored: stored.revoke(key_id)):
            raise KeyreelError("There is no such key, or it was revoked before.")

    def list(self) -> list[Key]:
        return self._do(lambda stored: stored.list())

    def _do(self, action: Callable[[Keys], Awaitable[T]]) -> T:
        async def act() -> T:
            async with open_store(self.url) as store:
                return await action(store.keys)

        return asyncio.run(act())


@contextmanager
def _key_manager(data_dir: Path | None) -> Iterator[KeyManager]:
    """Yields the keys of the server on `data_dir`. Prints errors of the block and ends the command."""
    settings = Settings().model_copy(update={"data_dir": data_dir} if data_dir else {})
    make_private(settings.data_dir)
    server = LocalServer.find(settings.data_dir)
    try:
        yield ServerKeys(server) if server and server.answers() else DatabaseKeys(database_url(settings))
    except KeyreelError as error:
        typer.secho(str(error), fg=typer.colors.RED, err=True)
        raise typer.Exit(1) from None


def _date(seconds: float | None) -> str:
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
