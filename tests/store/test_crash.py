"""kill -9 in the middle of a storm of submits: whatever was answered is there."""

import sqlite3
import subprocess
import sys
from pathlib import Path

from keyreel.store import open_store

STORM = """
import asyncio, sys
from keyreel.store import open_store
from keyreel.store.records import NewRequest

async def storm(store):
    while True:
        new = NewRequest(endpoint="endpoint", key_id="key", input={"prompt": "x" * 500}, seed=1)
        print((await store.queue.submit(new)).id, flush=True)

async def main(url):
    async with open_store(url) as store:
        await asyncio.gather(*(storm(store) for _ in range(8)))

asyncio.run(main(sys.argv[1]))
"""


def storm(url: str, answers: int) -> list[str]:
    """Ids that the process wrote before it was killed, some time after so many of them."""
    with subprocess.Popen([sys.executable, "-c", STORM, url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        answered = [process.stdout.readline().strip() for _ in range(answers)]
        process.kill()
        rest = process.stdout.read().split("\n")
    return answered + rest[:-1]  # the last line may be cut


async def test_what_was_answered_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "keyreel.db"
    url = f"sqlite:///{path}"
    answered: set[str] = set()
    for answers in (1, 37, 101):
        answered.update(storm(url, answers))
        async with open_store(url) as store:
            found = {request.id for request in await store.requests.live()}
        assert len(answered) >= answers
        assert answered <= found
        with sqlite3.connect(path) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()
