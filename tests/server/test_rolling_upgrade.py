"""A rolling upgrade: the tables get a newer revision and every process is replaced, while requests come and complete.

The newer release is this one with one more migration. Its files are links to ours.
"""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import asyncpg
import httpx
import pytest
from alembic.script import ScriptDirectory

import keyreel
from keyreel.store import migrate
from tests.server.live import APP, ENDPOINT
from tests.server.members import FAKE_WORKER, GATEWAY, HEADERS, Member, fleet_settings, members, wait_until_ready
from tests.server.whole import small
from tests.store.postgres import find_programs, running_server

pytestmark = pytest.mark.slow

CLIENTS = 3
ROOT = Path(__file__).parents[2]
MIGRATION = '''"""What a newer release may add."""

import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "9999", {head!r}, None, None


def upgrade() -> None:
    op.create_table("novelty", sa.Column("id", sa.Integer, primary_key=True))
    op.add_column("request", sa.Column("novelty", sa.Text))
    op.add_column("worker", sa.Column("novelty", sa.Integer, server_default="1", nullable=False))
    op.create_index("request_novelty", "request", ["novelty"])
'''


@pytest.fixture
def database_url() -> Iterator[str]:
    programs = find_programs()
    if not programs:
        pytest.skip("PostgreSQL is not installed")
    with running_server(programs) as url:
        yield url


@pytest.fixture
def newer_release(tmp_path: Path) -> Path:
    """Returns the folder of a newer release, for the PYTHONPATH."""
    folder = tmp_path / "newer"
    package = Path(keyreel.__file__).parent
    copytree(package, folder / "keyreel", copy_function=os.symlink, ignore=ignore_patterns("__pycache__"))
    head = ScriptDirectory.from_config(migrate._config()).get_current_head()
    versions = folder / "keyreel" / "store" / "migrations" / "versions"
    (versions / "9999_novelty.py").write_text(MIGRATION.format(head=head))
    return folder


class Balancer:
    """Passes each call to the next gateway. A gateway that is taken out still ends the calls that it has."""

    def __init__(self, *gateways: str) -> None:
        self._gateways = list(gateways)
        self._running = dict.fromkeys(gateways, 0)
        self._changed = threading.Condition()
        self._turn = count()
        self._http = httpx.Client(headers=HEADERS, timeout=60, trust_env=False)

    def call(self, method: str, path: str, **options: Any) -> Any:
        """Returns the answer. Raises httpx.HTTPError when the call fails: it is not repeated."""
        with self._changed:
            gateway = self._gateways[next(self._turn) % len(self._gateways)]
            self._running[gateway] += 1
        try:
            return self._http.request(method, gateway + path, **options).raise_for_status().json()
        finally:
            with self._changed:
                self._running[gateway] -= 1
                self._changed.notify_all()

    def replace(self, old: str, new: str) -> None:
        """Returns when no call runs on the old gateway."""
        with self._changed:
            self._running[new] = 0
            self._gateways[self._gateways.index(old)] = new
            self._changed.wait_for(lambda: not self._running[old])

    def close(self) -> None:
        self._http.close()


class Stream:
    """Clients that submit one request after the other and read the result of each."""

    def __init__(self, balancer: Balancer) -> None:
        self._balancer = balancer
        self._stop = threading.Event()
        self.completed: list[str] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Raises, at its end, what went wrong in a client."""
        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(self._client, number) for number in range(CLIENTS)]
            try:
                yield
            finally:
                self._stop.set()
            for client in clients:
                client.result()

    def wait_for(self, more: int) -> None:
        """Waits until some more requests have completed, or a client has failed."""
        goal = len(self.completed) + more
        while len(self.completed) < goal and not self._stop.is_set():
            time.sleep(0.05)

    def _client(self, number: int) -> None:
        try:
            for turn in count():
                if self._stop.is_set():
                    return
                self._make(f"pace=0.05 {number} {turn}")
        finally:
            self._stop.set()

    def _make(self, prompt: str) -> None:
        call = self._balancer.call
        path = f"/queue/{APP}/requests/{call('POST', f'/queue/{ENDPOINT}', json=small(prompt))['request_id']}"
        while call("GET", f"{path}/status")["status"] != "COMPLETED":
            time.sleep(0.05)
        assert call("GET", path)["prompt"] == prompt
        self.completed.append(path)


def test_an_upgrade_under_load_fails_no_request(database_url: str, newer_release: Path, tmp_path: Path) -> None:
    settings = fleet_settings(database_url, tmp_path)
    newer = settings | {"PYTHONPATH": f"{newer_release}{os.pathsep}{ROOT}"}
    with members(tmp_path / "old", settings) as start_old, members(tmp_path / "new", newer) as start_new:
        old_gateways, old_workers = started(start_old)
        balancer = Balancer(*old_gateways)
        stream = Stream(balancer)
        with stream.running():
            stream.wait_for(5)
            assert migrated(newer, tmp_path) == "The tables are at revision 9999.\n"
            stream.wait_for(5)
            new_gateways, new_workers = started(start_new)
            for (old_url, old), new_url in zip(old_gateways.items(), new_gateways, strict=True):
                balancer.replace(old_url, new_url)
                assert old.end() == 0
                stream.wait_for(5)
            for worker in old_workers:
                assert worker.end() == 0
                stream.wait_for(5)
        assert [member.process.poll() for member in (*new_gateways.values(), *new_workers)] == [None] * 4
        balancer.close()
    rows = asyncio.run(requests(database_url))
    assert {row["state"] for row in rows} == {"COMPLETED"}
    assert all(row["result"] and not row["error"] and not row["failures"] for row in rows)
    assert len(rows) == len(stream.completed) == len(set(stream.completed))


async def requests(database_url: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(database_url)
    try:
        return list(await connection.fetch("SELECT state, result, error, failures FROM request"))
    finally:
        await connection.close()


def started(start: Callable[..., Member]) -> tuple[dict[str, Member], list[Member]]:
    """Starts two gateways and two workers. Returns them when they are ready, the gateways by their addresses."""
    gateways = [start(f"gateway-{number}", *GATEWAY) for number in range(2)]
    workers = [start(f"worker-{number}", *FAKE_WORKER) for number in range(2)]
    by_url = {gateway.url(): gateway for gateway in gateways}
    wait_until_ready(*by_url, *(worker.url() for worker in workers))
    return by_url, workers


def migrated(settings: dict[str, str], folder: Path) -> str:
    """Runs `keyreel migrate` and returns what it prints."""
    environment = os.environ | settings | {"KEYREEL_DATA_DIR": str(folder / "migrate")}
    command = [sys.executable, "-m", "keyreel", "migrate"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120).stdout
