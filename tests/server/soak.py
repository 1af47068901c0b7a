"""Makes a day's videos as fast as the server can, and checks that nothing grows: `python -m tests.server.soak`.

A day is 2,160 videos: one every 40 s, as a GPU of the H100's class makes them at 720p (docs/models.md). The engine is a
fake that draws at once. After each part of the day all requests and files expire, and the memory, open handles and
threads of each process, the rows and the disk are measured. Exits with status 1 if something grows.
"""

import argparse
import asyncio
import base64
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp
from benchmarks.tables import print_table

from tests.server.growth import Sample, grown, open_meter, rows
from tests.server.live import APP, ENDPOINT
from tests.server.webhook_receiver import Receiver, receiver
from tests.server.whole import HEADERS, small, whole_server
from tests.store.postgres import DATABASES, database_of_kind
from tests.worker.site import picture

DAY = 2160
PARTS = 12
CLIENTS = 8
LIFETIME = 30.0
LIFETIMES = ("retention", "input_lifetime", "output_lifetime", "audit_retention")
PERIOD = 0.5
"""Seconds between two deletions of what has expired."""
PERIODS = ("REAP_PERIOD", "SWEEP_PERIOD", "AUDIT_PERIOD")
CONSTANTS = {f"keyreel.server.process.{name}": PERIOD for name in PERIODS}
WORK = small("preview pace=0.005", number_of_steps=5)
PICTURE = picture()
DATA_URI = f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}"
NO_PICTURE = "data:image/png;base64,AAAA"


@dataclass
class Clients:
    """What users do all day. Each kind of request has a method."""

    http: aiohttp.ClientSession
    webhooks: Receiver
    lifetime: float
    number: int
    counts: Counter[str] = field(default_factory=Counter)

    async def run(self, requests: int) -> None:
        left = iter(range(requests))

        async def client() -> None:
            for number in left:
                kind = self._kinds[number % len(self._kinds)]
                await kind(self)
                self.counts[kind.__name__.replace("_", " ").strip()] += 1

        await asyncio.gather(*(client() for _ in range(self.number)))

    async def _plain(self) -> None:
        await self._watch(await self._submit(WORK))

    async def _with_a_picture(self) -> None:
        await self._watch(await self._submit(WORK | {"images": [{"image_url": DATA_URI}]}))

    async def _with_an_upload(self) -> None:
        fields = {"content_type": "image/png", "file_name": "picture.png"}
        lifecycle = {"X-Fal-Object-Lifecycle": json.dumps({"expiration_duration_seconds": self.lifetime})}
        path = "/storage/upload/initiate?storage_type=fal-cdn-v3"
        urls = await self._call("POST", path, json=fields, headers=lifecycle)
        await self._call("PUT", _path(urls["upload_url"]), data=PICTURE, headers={"Content-Type": "image/png"})
        await self._watch(await self._submit(WORK | {"images": [{"image_url": urls["file_url"]}]}))

    async def _with_a_webhook(self) -> None:
        await self._watch(await self._submit(WORK, f"?fal_webhook={self.webhooks.url}"))

    async def _sent_twice(self) -> None:
        headers = {"Idempotency-Key": str(uuid4())}
        first, second = [await self._submit(WORK, headers=headers) for _ in range(2)]
        assert first == second
        await self._watch(first)

    async def _cancelled(self) -> None:
        request_id = await self._submit(small("pace=0.02", number_of_steps=50))
        await self._call("PUT", f"/queue/{APP}/requests/{request_id}/cancel")
        await self._ended(request_id)

    async def _refused(self) -> None:
        request_id = await self._submit(WORK | {"images": [{"image_url": NO_PICTURE}]})
        await self._ended(request_id)
        async with self.http.get(f"/queue/{APP}/requests/{request_id}") as answer:
            assert answer.status == HTTPStatus.UNPROCESSABLE_ENTITY, await answer.text()

    async def _streamed(self) -> None:
        request_id = await self._submit(WORK)
        async with self.http.get(f"/queue/{APP}/requests/{request_id}/status/stream?logs=1") as answer:
            assert b"COMPLETED" in await answer.read()
        await self._fetch(request_id)

    async def _synchronous(self) -> None:
        output = await self._call("POST", f"/run/{ENDPOINT}", json=WORK)
        await self._download(output)

    _kinds: tuple[Callable[["Clients"], Awaitable[None]], ...] = (
        _plain,
        _with_a_picture,
        _with_an_upload,
        _with_a_webhook,
        _sent_twice,
        _cancelled,
        _refused,
        _streamed,
        _synchronous,
    )

    async def _submit(self, work: dict[str, Any], query: str = "", **options: Any) -> str:
        return str((await self._call("POST", f"/queue/{ENDPOINT}{query}", json=work, **options))["request_id"])

    async def _watch(self, request_id: str) -> None:
        await self._ended(request_id)
        await self._fetch(request_id)

    async def _ended(self, request_id: str) -> None:
        while (await self._call("GET", f"/queue/{APP}/requests/{request_id}/status"))["status"] != "COMPLETED":
            await asyncio.sleep(0.05)

    async def _fetch(self, request_id: str) -> None:
        await self._download(await self._call("GET", f"/queue/{APP}/requests/{request_id}"))

    async def _download(self, output: Any) -> None:
        async with self.http.get(_path(output["video"]["url"])) as video:
            assert len(await video.read()) == output["video"]["file_size"]

    async def _call(self, method: str, path: str, **options: Any) -> Any:
        async with self.http.request(method, path, **options) as answer:
            assert answer.status in (HTTPStatus.OK, HTTPStatus.ACCEPTED), await answer.text()
            return await answer.json() if answer.content_type == "application/json" else await answer.read()


def _path(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


async def soak(
    folder: Path, database_url: str, requests: int, parts: int, *, lifetime: float = LIFETIME, clients: int = CLIENTS
) -> tuple[list[Sample], Counter[str]]:
    """Serves the requests in as many parts. Returns a measurement after each, and what was done.

    lifetime: seconds for which outcomes and files are kept.
    """
    counts: Counter[str] = Counter()
    samples = []
    lifetimes: dict[str, Any] = dict.fromkeys(LIFETIMES, lifetime)
    settings = lifetimes | {"checkpoint_every": 0.01}
    async with (
        receiver() as webhooks,
        whole_server(folder, database=database_url, constants=CONSTANTS, **settings) as server,
        open_meter(server.process.pid, folder, database_url) as meter,
    ):
        for part in range(parts):
            started = time.monotonic()
            async with aiohttp.ClientSession(server.url, headers=HEADERS) as http:
                await Clients(http, webhooks, lifetime, clients, counts).run(requests // parts)
            seconds = time.monotonic() - started
            samples.append(await meter.when_settled())
            print(f"part {part + 1} of {parts}: {requests / parts / seconds:.1f} requests a second", flush=True)
        counts["webhooks received"] = webhooks.calls.qsize()
        await server.end()
    assert counts["webhooks received"] == counts["with a webhook"], counts
    return samples, counts


def _main(requests: int, parts: int, database: str) -> int:
    with tempfile.TemporaryDirectory() as name, database_of_kind(database, Path(name)) as url:
        started = time.monotonic()
        samples, counts = asyncio.run(soak(Path(name), url, requests, parts))
    print(f"\n{requests} requests on {database} in {time.monotonic() - started:.0f} s:")
    print(", ".join(f"{number} {what}" for what, number in counts.items()))
    print_table("after each part, when all had expired", *rows(samples))
    found = grown(samples)
    print("\n".join(found) or "nothing grew")
    return bool(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=DAY)
    parser.add_argument("--parts", type=int, default=PARTS)
    parser.add_argument("--database", choices=DATABASES, default=DATABASES[0])
    given = parser.parse_args()
    sys.exit(_main(given.requests, given.parts, given.database))
