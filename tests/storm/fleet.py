"""The processes of a fleet, each with a network of its own to PostgreSQL and S3, and what can happen to them."""

import asyncio
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.store.postgres import Server, find_programs, restartable_server
from tests.storm.network import Network
from tests.storm.s3 import BUCKET, S3Server, find_weed, free_ports, restartable_s3

START_TIMEOUT = 90.0
SETTLED = 5.0
"""Seconds after a disturbance in which a gateway may still tell what it last knew: it has to connect again."""
DOWN = 2.0
"""Seconds that PostgreSQL and S3 are away after a crash."""


@dataclass
class Member:
    """A gateway or a worker. Whoever does something to it holds `lock`."""

    name: str
    command: Sequence[str]
    environment: dict[str, str]
    database: Network
    bucket: Network
    port: int
    log: Path
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    process: subprocess.Popen[bytes] | None = None
    started: list[int] = field(default_factory=list)
    """The ids of all processes that were started, each the leader of a session."""
    may_end: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Starts the process and waits until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.started.append(self.process.pid)
        self.may_end = False
        async with asyncio.timeout(START_TIMEOUT), aiohttp.ClientSession() as http:
            while not await _answers(http, f"{self.url}/health/live"):
                self.check_alive()
                await asyncio.sleep(0.1)

    def check_alive(self) -> None:
        """Raises AssertionError if the process has ended by itself."""
        assert self.process
        ended = self.process.poll()
        assert self.may_end or ended is None, f"{self.name} ended by itself with status {ended}: {self.log}"

    async def kill(self) -> None:
        assert self.process
        self.may_end = True
        self.process.kill()
        await asyncio.to_thread(self.process.wait)

    async def drain(self) -> None:
        """Ends the process with SIGTERM. It must end cleanly."""
        assert self.process
        self.may_end = True
        self.process.terminate()
        assert await asyncio.to_thread(self.process.wait, START_TIMEOUT) == 0, f"{self.name}: {self.log}"

    def signal_all(self, number: int) -> None:
        """Sends a signal to the process and to those that it has started."""
        assert self.process
        os.killpg(self.process.pid, number)


class Fleet:
    """Gateways and workers at one database and one bucket."""

    def __init__(self, folder: Path, database: Server, bucket: S3Server, lease: float) -> None:
        self.gateways: list[Member] = []
        self.workers: list[Member] = []
        self.faults: Counter[str] = Counter()
        self._folder = folder
        self._database = database
        self._bucket = bucket
        self._lease = lease
        self._database_back_at = -math.inf
        # No process starts while PostgreSQL is away: it would say so and end.
        self._database_lock = asyncio.Lock()

    @property
    def database_url(self) -> str:
        return self._database.url

    @property
    def members(self) -> list[Member]:
        return self.gateways + self.workers

    @asynccontextmanager
    async def running(self, gateways: int, workers: int, settings: dict[str, str]) -> AsyncIterator[None]:
        """Runs the processes during the block, and ends them with SIGTERM."""
        async with AsyncExitStack() as stack:
            ports = free_ports(gateways + workers)
            serve = ("keyreel", "serve", "--no-worker", "--port")
            for number, port in enumerate(ports[:gateways]):
                command: Sequence[str] = (sys.executable, "-m", *serve, str(port))
                self.gateways.append(await self._member(stack, f"gateway-{number}", command, port, settings))
            for number, port in enumerate(ports[gateways:]):
                command = (sys.executable, "-m", "tests.storm.worker", str(port), str(self._lease))
                self.workers.append(await self._member(stack, f"worker-{number}", command, port, settings))
            try:
                await asyncio.gather(*(member.start() for member in self.members))
                yield
                await asyncio.gather(*(member.drain() for member in self.members))
            finally:
                for member in self.members:
                    _kill_sessions(member.started)

    async def _member(
        self, stack: AsyncExitStack, name: str, command: Sequence[str], port: int, settings: dict[str, str]
    ) -> Member:
        socket = f"{self._database.folder}/.s.PGSQL.5432"
        database = Network(lambda: asyncio.open_unix_connection(socket))
        bucket = Network(lambda: asyncio.open_connection("127.0.0.1", self._bucket.port))
        for network in (database, bucket):
            await stack.enter_async_context(network.open())
        environment = settings | {
            "KEYREEL_DATABASE_URL": f"postgresql://keyreel@127.0.0.1:{database.port}/postgres",
            "KEYREEL_OBJECT_STORE": f"s3://{BUCKET}/keyreel",
            "KEYREEL_DATA_DIR": str(self._folder / name),
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{bucket.port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_SKIP_SIGNATURE": "true",
            "AWS_REGION": "us-east-1",
        }
        return Member(name, command, environment, database, bucket, port, self._folder / f"{name}.log")

    def is_calm(self, gateway: Member) -> bool:
        """Returns whether the gateway has been able to reach the database for a while."""
        return max(self._database_back_at, gateway.database.healed_at) + SETTLED < time.monotonic()

    def leftovers(self) -> list[int]:
        """Returns the ids of processes that outlived the member that started them."""
        return [pid for member in self.members for leader in member.started for pid in session(leader)]

    async def kill(self, member: Member) -> None:
        async with member.lock:
            await member.kill()
            self.faults["killed"] += 1
            await self._start(member)

    async def drain(self, member: Member) -> None:
        async with member.lock:
            await member.drain()
            self.faults["drained"] += 1
            await self._start(member)

    async def pause(self, member: Member) -> None:
        """Stops a machine for longer than a lease."""
        async with member.lock:
            member.signal_all(signal.SIGSTOP)
            await asyncio.sleep(1.5 * self._lease)
            member.signal_all(signal.SIGCONT)
            self.faults["paused"] += 1

    async def cut(self, member: Member) -> None:
        """Cuts a machine off from PostgreSQL and S3 for longer than a lease."""
        async with member.lock:
            for network in (member.database, member.bucket):
                network.cut()
            await asyncio.sleep(1.5 * self._lease)
            for network in (member.database, member.bucket):
                network.heal()
            self.faults["cut off"] += 1

    async def crash_database(self) -> None:
        async with self._database_lock:
            self._database_back_at = math.inf
            await asyncio.to_thread(self._database.stop)
            await asyncio.sleep(DOWN)
            await asyncio.to_thread(self._database.start)
            self._database_back_at = time.monotonic()
            self.faults["PostgreSQL crashed"] += 1

    async def pause_database(self) -> None:
        """Stops all processes of PostgreSQL for longer than a lease: it accepts connections and does not answer."""
        async with self._database_lock:
            self._database_back_at = math.inf
            with self._database.paused():
                await asyncio.sleep(1.5 * self._lease)
            self._database_back_at = time.monotonic()
            self.faults["PostgreSQL paused"] += 1

    async def crash_bucket(self) -> None:
        await asyncio.to_thread(self._bucket.kill)
        await asyncio.sleep(DOWN)
        await asyncio.to_thread(self._bucket.start)
        self.faults["S3 crashed"] += 1

    async def _start(self, member: Member) -> None:
        async with self._database_lock:
            await member.start()


@asynccontextmanager
async def open_fleet(folder: Path, lease: float) -> AsyncIterator[Fleet]:
    """Starts PostgreSQL and S3. lease: in seconds."""
    programs, weed = find_programs(), find_weed()
    assert programs, "PostgreSQL is not installed"
    assert weed, "SeaweedFS is not installed"
    with restartable_server(programs) as database, restartable_s3(weed) as bucket:
        yield Fleet(folder, database, bucket, lease)


async def _answers(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with http.get(url, timeout=aiohttp.ClientTimeout(total=5)) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


def session(leader: int) -> list[int]:
    """Returns the ids of the processes in a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _parent, _group, number = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it has just ended
            continue
        if int(number) == leader and state != "Z":
            found.append(int(path.parent.name))
    return found


def _kill_sessions(leaders: Sequence[int]) -> None:
    for leader in leaders:
        for pid in session(leader):
            os.kill(pid, signal.SIGKILL)
