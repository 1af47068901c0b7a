"""A PostgreSQL server for the tests, run by the programs installed on this machine, and empty databases."""

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine

from tests.worker.processes import children

SERVER = "KEYREEL_TEST_POSTGRES"
"""Names the server to use in place of one that the tests start."""
INSTALLED = "/usr/lib/postgresql"
DATABASES = ("sqlite", "postgresql")
SETTINGS = ("fsync=off", "listen_addresses=", "max_connections=200")


def find_programs() -> Path | None:
    """Returns the folder of `initdb` and `pg_ctl`, or None: from PATH, or else Debian's newest version."""
    on_path = shutil.which("initdb")
    folders = sorted(Path(INSTALLED).glob("*/bin"), key=lambda folder: int(folder.parent.name), reverse=True)
    return Path(on_path).parent if on_path else next((path for path in folders if (path / "initdb").is_file()), None)


@dataclass(frozen=True, slots=True)
class Server:
    """An empty server of our own. `stop` does not wait for clients, as in a crash."""

    programs: Path
    folder: Path
    settings: Sequence[str] = SETTINGS

    @property
    def url(self) -> str:
        return f"postgresql://keyreel@/postgres?host={self.folder}"

    def start(self) -> None:
        options = " ".join(f"-c {setting}" for setting in (*self.settings, f"unix_socket_directories={self.folder}"))
        self._control("-o", options, "-l", self.folder / "log", "start")

    def stop(self) -> None:
        self._control("-m", "immediate", "stop")

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stops all processes of the server during the block: it accepts connections, but does not answer."""
        postmaster = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGSTOP)  # first, so that it starts no other process
        processes = [postmaster, *children("postgres", postmaster)]
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in processes:
                os.kill(pid, signal.SIGCONT)

    def _control(self, *arguments: str | Path) -> None:
        _run(self.programs / "pg_ctl", "-D", self.folder / "data", "-w", *arguments, user=_owner())


@contextmanager
def restartable_server(
    programs: Path, settings: Sequence[str] = SETTINGS, data: Path | None = None
) -> Iterator[Server]:
    """Starts a server. It and its folder are removed at the end of the block, where it has to be running.

    data: a folder on another disk for the tables. The write-ahead log is not in it: a server that cannot write it ends.
    """
    # In a short path, because the path of a socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="pg-") as name:
        folder, owner = Path(name), _owner()
        if owner:
            shutil.chown(folder, owner)
        if data:
            (folder / "data").symlink_to(data)
        options = ("-U", "keyreel", "--auth=trust", "--no-sync", "--waldir", folder / "wal")
        _run(programs / "initdb", "-D", folder / "data", *options, user=owner)
        server = Server(programs, folder, settings)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def running_server(programs: Path) -> Iterator[str]:
    """Starts an empty server and yields its URL."""
    with restartable_server(programs) as server:
        yield server.url


@contextmanager
def database_of_kind(kind: str, folder: Path, disk: Path | None = None) -> Iterator[str]:
    """Yields the URL of an empty database of one of the `DATABASES`, on PostgreSQL with a server of its own.

    folder: of the SQLite file. disk: the folder on another disk where PostgreSQL's tables shall be.
    """
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'keyreel.db'}"
        return
    programs = find_programs()
    if not programs:
        raise FileNotFoundError("PostgreSQL is not installed.")
    with restartable_server(programs, data=disk) as server:
        yield server.url


@contextmanager
def new_database(server_url: str | None, folder: Path) -> Iterator[str]:
    """Yields the URL of an empty database. A PostgreSQL database is dropped at the end of the block."""
    if not server_url:
        yield f"sqlite:///{folder / 'keyreel.db'}"
        return
    server = make_url(server_url).set(drivername="postgresql+asyncpg")
    name = f"keyreel_test_{secrets.token_hex(6)}"
    asyncio.run(_execute(server, f"CREATE DATABASE {name}"))
    yield server.set(drivername="postgresql", database=name).render_as_string(hide_password=False)
    asyncio.run(_execute(server, f"DROP DATABASE {name}"))


async def _execute(server: URL, statement: str) -> None:
    engine = create_async_engine(server, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(statement))
    await engine.dispose()


def _owner() -> str | None:
    """Returns the user that runs the server if this process is root, because PostgreSQL refuses to run as root."""
    return "postgres" if os.geteuid() == 0 else None


def _run(*command: str | Path, user: str | None) -> None:
    options: dict[str, Any] = {"user": user} if user else {}
    subprocess.run(command, check=True, capture_output=True, cwd="/", stdin=subprocess.DEVNULL, **options)
