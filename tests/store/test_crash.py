"""A process is killed with kill -9 while it submits many requests: every request that it confirmed is in the store."""

import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from sqlalchemy import make_url

from keyreel.store import open_store
from tests.store.steps import live_requests

SUBMITS = """
import asyncio, sys
from keyreel.store import open_store
from keyreel.store.records import NewRequest

async def submit_forever(store):
    while True:
        new = NewRequest(endpoint="endpoint", key_id="key", input={"prompt": "x" * 500}, seed=1)
        print((await store.queue.submit(new)).id, flush=True)

async def main(url):
    async with open_store(url) as store:
        await asyncio.gather(*(submit_forever(store) for _ in range(8)))

asyncio.run(main(sys.argv[1]))
"""


def submit_until_killed(url: str, minimum: int) -> list[str]:
    """Kills the process after it has confirmed `minimum` requests or more. Returns the ids that it confirmed."""
    with subprocess.Popen([sys.executable, "-c", SUBMITS, url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        confirmed = [process.stdout.readline().strip() for _ in range(minimum)]
        process.kill()
        rest = process.stdout.read().split("\n")
    return confirmed + rest[:-1]  # the last line may be cut


@pytest.mark.slow
async def test_confirmed_requests_survive_kill_9(new_url: str) -> None:
    confirmed: set[str] = set()
    for minimum in (1, 37, 101):
        confirmed.update(submit_until_killed(new_url, minimum))
        async with open_store(new_url) as store:
            found = {request.id for request in await live_requests(store)}
        assert len(confirmed) >= minimum
        assert confirmed <= found
        if path := make_url(new_url).database if new_url.startswith("sqlite") else None:
            with closing(sqlite3.connect(path)) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
