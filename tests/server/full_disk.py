"""Fills the disk many times while clients submit requests: `python -m tests.server.full_disk --rounds 200`.

Each submit must be answered with 200 or with 5xx. A request that was answered with 200 must complete once; no other
request may be in the queue. The disk is a small tmpfs with the files and the database: SQLite's, or the tables of
PostgreSQL. Where mounting one is not permitted, name a folder on a small file system with --folder.
"""

import argparse
import asyncio
import base64
import os
import pwd
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import aiohttp

from keyreel.fal.outcomes import WORKER_LOST
from keyreel.worker.completion import MACHINE_FAILURE
from tests.server.chaos import TIMEOUT, check_video, ended, ready
from tests.server.live import APP, ENDPOINT
from tests.server.requests_table import check_integrity, read_requests
from tests.server.whole import HEADERS, small, whole_server
from tests.store.postgres import DATABASES, database_of_kind
from tests.worker.site import picture

ON_A_SMALL_DISK = """
mount -t tmpfs -o size="$1" tmpfs "$2"
user=$3; shift 3
exec unshare --map-user="$user" --map-group="$user" "$@"
"""
"""Takes the size of a disk, a folder, a user and a command. Runs the command with the disk mounted at the folder.

The user is not root, as which PostgreSQL does not run.
"""
SIZES = {"sqlite": "24m", "postgresql": "96m"}
CLIENTS = 4
SUBMITS = 2
MAX_PAUSE = 0.3
"""Seconds from the start of the submits until the disk is full, at most."""
SPARE = 64 * 1024
"""Bytes that stay free, at most: enough for a row or for half a file."""
PICTURE = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"
WORK = (small("pace=0.01"), small("pace=0.01", images=[{"image_url": PICTURE}]))


@dataclass
class Storm:
    folder: Path
    database_url: str
    rng: random.Random
    accepted: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    async def round(self, http: aiohttp.ClientSession) -> None:
        clients = [asyncio.create_task(self._submit(http)) for _ in range(CLIENTS)]
        await asyncio.sleep(self.rng.uniform(0, MAX_PAUSE))
        with full(self.folder, self.rng.randrange(SPARE)):
            await asyncio.gather(*clients)
            if self.accepted:  # reading must still work
                async with http.get(f"/queue/{APP}/requests/{self.accepted[-1]}/status") as answer:
                    assert answer.status in (HTTPStatus.OK, HTTPStatus.ACCEPTED)
        self.counts["rounds"] += 1

    async def drain(self, http: aiohttp.ClientSession) -> None:
        """Waits until all accepted requests have completed. The disk has room again."""
        for request_id in self.accepted:
            async with asyncio.timeout(TIMEOUT):
                await ended(http, request_id)
            if not await check_video(http, request_id, WORKER_LOST.type, MACHINE_FAILURE):
                self.counts["ended after three attempts without room"] += 1

    async def check_database(self) -> None:
        """Checks the database after the server has ended."""
        check_integrity(self.database_url)
        rows = [row.id for row in await read_requests(self.database_url, "id")]
        assert sorted(rows) == sorted(self.accepted)
        self.counts["accepted"] = len(rows)

    async def _submit(self, http: aiohttp.ClientSession) -> None:
        for work in self.rng.choices(WORK, k=SUBMITS):
            async with http.post(f"/queue/{ENDPOINT}", json=work) as answer:
                if answer.status == HTTPStatus.OK:
                    self.accepted.append((await answer.json())["request_id"])
                else:
                    assert answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR, await answer.text()
                    self.counts["refused"] += 1


@contextmanager
def full(folder: Path, spare: int) -> Iterator[None]:
    """Fills the disk of `folder` up to `spare` free bytes. It has room again after the block."""
    ballast = folder / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            with suppress(OSError):
                while file.write(bytes(SPARE)):
                    pass
            file.truncate(max(0, file.tell() - spare))
        yield
    finally:
        ballast.unlink()


async def storm(folder: Path, database_url: str, rounds: int, seed: int) -> Counter[str]:
    """Runs the rounds and checks the results. Returns counts to print."""
    run = Storm(folder, database_url, random.Random(seed))  # noqa: S311
    async with whole_server(folder, database=database_url, min_free_bytes=0) as server:
        async with aiohttp.ClientSession(server.url, headers=HEADERS) as http:
            await ready(http)
            for _ in range(rounds):
                await run.round(http)
            await run.drain(http)
        await server.end()
    await run.check_database()
    return run.counts


def on_a_small_disk(folder: str, size: str, *command: str) -> Sequence[str]:
    """Returns a command that runs `command` with a small disk mounted at the folder."""
    user = str(os.getuid() or pwd.getpwnam("nobody").pw_uid)
    script = ("sh", "-euc", ON_A_SMALL_DISK, "sh")
    return ("unshare", "--map-root-user", "--mount", *script, size, folder, user, *command)


def command(folder: str, rounds: int, seed: int = 0, database: str = DATABASES[0]) -> Sequence[str]:
    """Returns the command that runs this program on a small disk."""
    program = (sys.executable, "-m", "tests.server.full_disk", "--folder", folder, "--database", database)
    return on_a_small_disk(folder, SIZES[database], *program, "--rounds", str(rounds), "--seed", str(seed))


def _main(folder: Path, rounds: int, seed: int, database: str) -> None:
    started = time.monotonic()
    tables = folder / "tables"
    tables.mkdir()
    with database_of_kind(database, folder, tables) as url:
        counts = asyncio.run(storm(folder, url, rounds, seed))
    print(f"{database}:", ", ".join(f"{number} {name}" for name, number in counts.items()), end=": ")
    print(f"each 200 completed once, all others were 5xx, integrity ok, in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--database", choices=DATABASES, default=DATABASES[0])
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.folder:
        _main(given.folder, given.rounds, given.seed, given.database)
    else:
        with tempfile.TemporaryDirectory() as name:
            sys.exit(subprocess.run(command(name, given.rounds, given.seed, given.database)).returncode)
