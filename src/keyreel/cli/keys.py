"""`keyreel keys`: manages API keys, through the server if it runs, else in its database."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar
from urllib.parse import quote, urlencode

import typer
from rich.console import Console
from rich.table import Column, Table

from keyreel.cli.local_server import LocalServer
from keyreel.errors import KeyreelError
from keyreel.files.secrets import make_private
from keyreel.server.credentials import LOCAL
from keyreel.server.startup import database_url
from keyreel.server.usage import SHOWN_DAYS, UsageView, read_usage
from keyreel.settings import Settings
from keyreel.store import Store, open_store
from keyreel.store.audit import Actor
from keyreel.store.records import MAX_NUMBER, MAX_SIZE, Key, Limits, NewKey
from keyreel.store.scopes import ALL_SCOPES, USER_SCOPES, Scope

T = TypeVar("T")

MaxRequests = Annotated[int | None, typer.Option(min=1, max=MAX_NUMBER, help="Requests that may wait and run at once.")]
MaxQueued = Annotated[int | None, typer.Option(min=1, max=MAX_NUMBER, help="Requests that may wait at once.")]
MaxRunning = Annotated[
    int | None, typer.Option(min=1, max=MAX_NUMBER, help="Requests that run at once; further ones wait.")
]
MaxPerMinute = Annotated[
    int | None, typer.Option(min=1, max=MAX_NUMBER, help="Requests that may be submitted in a minute.")
]
MaxBytes = Annotated[int | None, typer.Option(min=1, max=MAX_SIZE, help="Total size of the stored files, in bytes.")]
MaxUploadBytes = Annotated[
    int | None, typer.Option(min=1, max=MAX_SIZE, help="Size of what may be uploaded in a day, in bytes.")
]
KeyId = Annotated[str, typer.Argument(help="Id of the key, the part before the colon.")]
DataDir = Annotated[Path | None, typer.Option(help="The server's data folder.")]

DAY = "%Y-%m-%d"
COMMAND_LINE = Actor(LOCAL, None)

keys = typer.Typer(help="Manage the API keys of the server.", no_args_is_help=True)


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    admin: Annotated[bool, typer.Option("--admin", help="Allow the key to manage keys and see all requests.")] = False,
    scope: Annotated[
        list[Scope] | None,
        typer.Option(help="What the key may do. Can be repeated. Default: submit, read and upload."),
    ] = None,
    expires: Annotated[
        datetime | None, typer.Option(formats=[DAY], help="The day (UTC) on which the key expires, at 00:00.")
    ] = None,
    max_requests: MaxRequests = None,
    max_queued: MaxQueued = None,
    max_running: MaxRunning = None,
    max_per_minute: MaxPerMinute = None,
    max_bytes: MaxBytes = None,
    max_upload_bytes: MaxUploadBytes = None,
    data_dir: DataDir = None,
) -> None:
    """Create a key and print it. It cannot be shown again."""
    limits = Limits(
        max_requests=max_requests,
        max_queued=max_queued,
        max_running=max_running,
        max_per_minute=max_per_minute,
        max_bytes=max_bytes,
        max_upload_bytes=max_upload_bytes,
    )
    if admin and scope:
        raise typer.BadParameter("Give either --admin or --scope.")
    expires_at = expires.replace(tzinfo=UTC).timestamp() if expires else None
    if expires_at is not None and expires_at <= time.time():
        raise typer.BadParameter("The day of --expires must be in the future.")
    wanted = Wanted(name, admin, scope, expires_at, limits)
    with _key_manager(data_dir) as manager:
        new = manager.create(wanted)
    typer.echo(f"{new.key.id}:{new.secret}")


@keys.command("limit")
def replace_limits(
    key_id: KeyId,
    max_requests: MaxRequests = None,
    max_queued: MaxQueued = None,
    max_running: MaxRunning = None,
    max_per_minute: MaxPerMinute = None,
    max_bytes: MaxBytes = None,
    max_upload_bytes: MaxUploadBytes = None,
    data_dir: DataDir = None,
) -> None:
    """Replace the limits of a key. For a limit that is left out, the server's default holds."""
    limits = Limits(
        max_requests=max_requests,
        max_queued=max_queued,
        max_running=max_running,
        max_per_minute=max_per_minute,
        max_bytes=max_bytes,
        max_upload_bytes=max_upload_bytes,
    )
    with _key_manager(data_dir) as manager:
        manager.set_limits(key_id, limits)
    typer.echo(f"{key_id}: {', '.join(_described(limits)) or 'the limits of the server'}")


@keys.command("usage")
def show_usage(
    key_id: Annotated[str | None, typer.Argument(help="Id of one key. Default: all keys.")] = None,
    since: Annotated[
        datetime | None, typer.Option(formats=[DAY], help=f"The first day, in UTC. Default: {SHOWN_DAYS} days in all.")
    ] = None,
    until: Annotated[datetime | None, typer.Option(formats=[DAY], help="The last day, in UTC. Default: today.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Show what keys have used, by day."""
    with _key_manager(data_dir) as manager:
        used = manager.usage(key_id, since.date() if since else None, until.date() if until else None)
    if as_csv:
        typer.echo(used.csv(), nl=False)
    else:
        Console().print(_usage_table(used))


@keys.command("list")
def list_keys(data_dir: DataDir = None) -> None:
    """List the keys, without their secrets."""
    with _key_manager(data_dir) as manager:
        listed = manager.list()
    # In 80 columns, ids and limits stay on one line and the other columns wrap.
    name, role, created, ends = (Column(each, overflow="fold") for each in ("Name", "Role", "Created", "Ends"))
    ids, limits = Column("Id", no_wrap=True), Column("Limits", no_wrap=True)
    table = Table(ids, name, role, limits, created, ends, box=None, pad_edge=False)
    for key in listed:
        limited = "\n".join(_described(key.limits))
        table.add_row(key.id, key.name, _role(key), limited, _date(key.created), _end(key))
    Console().print(table)


@keys.command()
def revoke(key_id: KeyId, data_dir: DataDir = None) -> None:
    """Revoke a key and cancel its requests. The server refuses it from now on."""
    with _key_manager(data_dir) as manager:
        manager.revoke(key_id)
    typer.echo(f"{key_id} is revoked.")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A key to be created. expires_at: seconds since 1970."""

    name: str
    admin: bool
    scopes: list[Scope] | None
    expires_at: float | None
    limits: Limits


class KeyManager(Protocol):
    """Creates, limits, revokes and lists keys, and tells what they have used."""

    def create(self, wanted: Wanted) -> NewKey: ...
    def set_limits(self, key_id: str, limits: Limits) -> None: ...
    def usage(self, key_id: str | None, since: date | None, until: date | None) -> UsageView: ...
    def revoke(self, key_id: str) -> None: ...
    def list(self) -> list[Key]: ...


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """Manages keys through the running server, which applies changes at once."""

    server: LocalServer

    def create(self, wanted: Wanted) -> NewKey:
        body = asdict(wanted)
        answer = self.server.call("POST", "/keys", body | body.pop("limits"))
        return NewKey(_key(answer), answer["secret"])

    def set_limits(self, key_id: str, limits: Limits) -> None:
        self.server.call("PUT", f"{_path(key_id)}/limits", asdict(limits))

    def usage(self, key_id: str | None, since: date | None, until: date | None) -> UsageView:
        period = {name: day.isoformat() for name, day in (("since", since), ("until", until)) if day}
        path = "/keys" if key_id is None else _path(key_id)
        return UsageView.model_validate(self.server.call("GET", f"{path}/usage?{urlencode(period)}"))

    def revoke(self, key_id: str) -> None:
        self.server.call("DELETE", _path(key_id))

    def list(self) -> list[Key]:
        return [_key(key) for key in self.server.call("GET", "/keys")]


@dataclass(frozen=True, slots=True)
class DatabaseKeys:
    """Manages keys in the database at `url`, while no server runs."""

    url: str

    def create(self, wanted: Wanted) -> NewKey:
        return self._do(
            lambda store: store.keys.create(
                wanted.name,
                admin=wanted.admin,
                scopes=wanted.scopes,
                expires_at=wanted.expires_at,
                limits=wanted.limits,
                by=COMMAND_LINE,
            )
        )

    def set_limits(self, key_id: str, limits: Limits) -> None:
        if not self._do(lambda store: store.keys.set_limits(key_id, limits, COMMAND_LINE)):
            raise KeyreelError("There is no such key, or it was revoked.")

    def usage(self, key_id: str | None, since: date | None, until: date | None) -> UsageView:
        return self._do(lambda store: read_usage(store.usage, key_id, since, until))

    def revoke(self, key_id: str) -> None:
        if not self._do(lambda store: store.keys.revoke(key_id, COMMAND_LINE)):
            raise KeyreelError("There is no such key, or it was revoked before.")

    def list(self) -> list[Key]:
        return self._do(lambda store: store.keys.list())

    def _do(self, action: Callable[[Store], Awaitable[T]]) -> T:
        async def act() -> T:
            async with open_store(self.url) as store:
                return await action(store)

        return asyncio.run(act())


def server_settings(data_dir: Path | None) -> Settings:
    """Returns the settings of the server that a command manages.

    Raises KeyreelError if nothing says where it is: a key in a new, empty database would be of no use.
    """
    settings = Settings().model_copy(update={"data_dir": data_dir} if data_dir else {})
    is_named = settings.database_url or "data_dir" in settings.model_fields_set
    if not is_named and not (settings.data_dir / "keyreel.db").exists():
        raise KeyreelError(
            f"There is no server's database in {settings.data_dir}. Set KEYREEL_DATABASE_URL or KEYREEL_DATA_DIR as "
            "for the server, or name its folder with --data-dir."
        )
    return settings


@contextmanager
def _key_manager(data_dir: Path | None) -> Iterator[KeyManager]:
    """Yields the keys of the server on `data_dir`. Prints errors of the block and ends the command."""
    try:
        settings = server_settings(data_dir)
        make_private(settings.data_dir)
        server = LocalServer.find(settings.data_dir)
        yield ServerKeys(server) if server and server.answers() else DatabaseKeys(database_url(settings))
    except KeyreelError as error:
        typer.secho(str(error), fg=typer.colors.RED, err=True)
        raise typer.Exit(1) from None


def _key(answer: dict[str, Any]) -> Key:
    limits = Limits(**{name: answer[name] for name in Limits.__slots__})
    scopes = frozenset(map(Scope, answer["scopes"]))
    return Key(answer["id"], answer["name"], scopes, answer["created"], answer["revoked"], limits, answer["expires_at"])


def _path(key_id: str) -> str:
    return f"/keys/{quote(key_id, safe='')}"


def _described(limits: Limits) -> list[str]:
    set_limits = {name: limit for name, limit in asdict(limits).items() if limit is not None}
    return [f"{name.removeprefix('max_').replace('_', ' ')} {limit}" for name, limit in set_limits.items()]


def _role(key: Key) -> str:
    """Returns the role, or the scopes of a key that has others."""
    named = {ALL_SCOPES: "admin", USER_SCOPES: "user"}.get(key.scopes)
    return named or "\n".join(sorted(key.scopes))


def _end(key: Key) -> str:
    return f"revoked {_date(key.revoked)}" if key.revoked else _date(key.expires_at)


def _usage_table(used: UsageView) -> Table:
    figures = (Column(title, justify="right") for title in ("Completed", "Failed", "Cancelled", "Device s", "MB"))
    table = Table("Day", Column("Key", overflow="fold"), *figures, box=None, pad_edge=False)
    for day in used.days:
        counts = (str(count) for count in (day.completed, day.failed, day.cancelled))
        table.add_row(
            str(day.day), day.name or day.key_id, *counts, f"{day.device_seconds:.1f}", f"{day.bytes / 1e6:.1f}"
        )
    return table


def _date(seconds: float | None) -> str:
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
