"""Kills the server at each stage of a request: `python -m tests.server.stages`.

The server kills itself just before or just after it calls a function. The next server, which dies at the next stage,
first has to complete what the one before it left. `--database postgresql` runs it on PostgreSQL.
"""

import argparse
import asyncio
import os
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
from aiohttp import web

from tests.server.chaos import TIMEOUT, check_video, ended, ready
from tests.server.live import ENDPOINT
from tests.server.requests_table import check_integrity, read_requests
from tests.server.soak import DATA_URI
from tests.server.webhook_receiver import receiver
from tests.server.whole import ARM, HEADERS, Death, small, whole_server
from tests.store.postgres import DATABASES, database_of_kind

STAGES = (
    Death("keyreel.server.submit:_store_file", after=True),
    Death("keyreel.store.queue:Queue.submit"),
    Death("keyreel.store.queue:Queue.submit", after=True),
    Death("keyreel.store.queue:Queue.claim", after=True),
    Death("keyreel.worker.session:prepare_inputs"),
    Death("keyreel.worker.inputs:Decoder.decode", after=True),
    Death("keyreel.worker.attempt:Attempt.enter_device", after=True),
    Death("keyreel.store.queue:Queue.save_checkpoint", after=True),
    Death("keyreel.worker.attempt:Attempt.leave_device", after=True),
    Death("keyreel.worker.completion:_publish"),
    Death("keyreel.worker.completion:_publish", after=True),
    Death("keyreel.store.queue:Queue.finish"),
    Death("keyreel.store.queue:Queue.finish", after=True),
    Death("keyreel.server.webhooks:_Deliverer._post"),
    Death("keyreel.server.webhooks:_Deliverer._post", after=True),
    Death("keyreel.store.deliveries:Deliveries.delivered", after=True),
)
SHORT_LEASE = {"keyreel.store.deliveries.LEASE": 3.0}
"""Of a delivery whose server died. It must be longer than a call."""
WORK = small("pace=0.02", number_of_steps=10, images=[{"image_url": DATA_URI}])


@dataclass
class Stages:
    """Servers that follow each other on one database, and what their clients have seen."""

    folder: Path
    database_url: str
    webhook: str
    called: Counter[str]
    """Webhook calls by request id."""
    accepted: list[str] = field(default_factory=list)
    interrupted: str | None = None
    """The idempotency key of the request of which the last server died."""

    async def serve(self, stage: Death | None) -> None:
        """Runs a server. It completes what the one before it left, and dies at its stage, if it has one."""
        settings: dict[str, Any] = {"dies": stage, "constants": SHORT_LEASE, "checkpoint_every": 0.01}
        # Every server has another port. Links to inputs must not depend on it.
        settings["public_url"] = "http://keyreel.example"
        async with (
            whole_server(self.folder, database=self.database_url, **settings) as server,
            aiohttp.ClientSession(server.url, headers=HEADERS) as http,
        ):
            await ready(http)
            if self.interrupted:
                self.accepted.append(await self._complete(http, self.interrupted))
            if stage is None:
                await server.end()
                return
            self.interrupted = str(uuid4())
            os.kill(server.process.pid, ARM)
            with suppress(aiohttp.ClientError):  # it will be sent again
                await self._submit(http, self.interrupted)
            async with asyncio.timeout(TIMEOUT):
                assert await server.process.wait() < 0, stage

    async def check(self) -> Counter[str]:
        """Checks the database when the last server has ended. Returns counts to print."""
        check_integrity(self.database_url)
        rows = await read_requests(self.database_url, "id", "attempt", "state", "error")
        assert [row.id for row in rows] == self.accepted
        assert all(row.state == "COMPLETED" and row.error is None for row in rows), rows
        assert self.called.keys() == set(self.accepted)
        return Counter(
            {
                "second attempts": sum(row.attempt > 1 for row in rows),
                "webhooks called again": self.called.total() - len(rows),
            }
        )

    async def _complete(self, http: aiohttp.ClientSession, key: str) -> str:
        """Sends a request again and waits for its video and its webhook. Returns its id."""
        request_id = await self._submit(http, key)
        async with asyncio.timeout(TIMEOUT):
            await ended(http, request_id)
            while request_id not in self.called:
                await asyncio.sleep(0.05)
        assert await check_video(http, request_id)
        return request_id

    async def _submit(self, http: aiohttp.ClientSession, key: str) -> str:
        path = f"/queue/{ENDPOINT}?fal_webhook={self.webhook}"
        async with http.post(path, json=WORK, headers={"Idempotency-Key": key}) as answer:
            assert answer.status == 200, await answer.text()
            return str((await answer.json())["request_id"])


async def kill_at(folder: Path, database_url: str, stages: Sequence[Death]) -> Counter[str]:
    """Kills one server after the other, each at its stage, and checks all requests. Returns counts to print."""
    called: Counter[str] = Counter()

    async def answer(request: web.Request) -> web.Response:
        called[request.headers["X-Fal-Webhook-Request-Id"]] += 1
        return web.Response()

    async with receiver(answer=answer) as webhooks:
        run = Stages(folder, database_url, webhooks.url, called)
        for stage in (*stages, None):
            await run.serve(stage)
    return await run.check()


def _main(database: str) -> None:
    with tempfile.TemporaryDirectory() as name, database_of_kind(database, Path(name)) as url:
        started = time.monotonic()
        counts = asyncio.run(kill_at(Path(name), url, STAGES))
    print(
        f"{database}: killed at {len(STAGES)} stages:",
        ", ".join(f"{number} {name}" for name, number in counts.items()),
        end=": ",
    )
    print(f"each completed once, integrity ok, in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=DATABASES, default=DATABASES[0])
    _main(parser.parse_args().database)
