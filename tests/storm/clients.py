"""Clients of a fleet: each asks one gateway after the other, and checks what it is told."""

import asyncio
import base64
import itertools
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp

from keyreel.store.records import State
from tests.server.live import APP, ENDPOINT
from tests.server.whole import small
from tests.storm.fleet import Fleet, Member
from tests.storm.places import Places
from tests.worker.site import picture

CALL_TIMEOUT = 20.0
PAUSE = 0.2
"""Seconds between two calls of a client."""
PICTURE = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"


@dataclass(frozen=True)
class Answer:
    gateway: Member
    asked: float
    answered: float
    """When the call began and ended (monotonic, in seconds)."""
    status: int
    headers: dict[str, str]
    body: Any


@dataclass
class Accepted:
    """A request that was answered with 200, and what became of it."""

    key: str
    low: bool
    returns: int = 0
    """How often a client saw it come back into the queue."""
    result: Any = None
    failed: bool = False


@dataclass
class Clients:
    """All clients, and what they have seen. `broken` lists what must not happen."""

    fleet: Fleet
    http: aiohttp.ClientSession
    places: Places
    rng: random.Random
    credentials: dict[str, str]
    """The Authorization header by the id of the key."""
    webhook: str
    accepted: dict[str, Accepted] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    async def request(self, key: str) -> None:
        """Submits one request and follows it to the end."""
        gateways = itertools.cycle(self.rng.sample(self.fleet.gateways, len(self.fleet.gateways)))
        low = self.rng.random() < 0.3
        request_id = await self._submit(gateways, key, low)
        mine = self.accepted[request_id] = Accepted(key, low)
        await self._follow(gateways, request_id, mine)
        await self._fetch(gateways, request_id, mine)

    async def _submit(self, gateways: Iterator[Member], key: str, low: bool) -> str:
        body = small(f"pace=0.0{self.rng.randrange(1, 6)}", number_of_steps=5, seed=self.rng.randrange(1000))
        if self.rng.random() < 0.2:
            body["images"] = [{"image_url": PICTURE}]
        headers = {"Idempotency-Key": str(uuid4()), "X-Fal-Queue-Priority": "low" if low else "normal"}
        path = f"/queue/{ENDPOINT}?fal_webhook={self.webhook}"
        while True:
            answer = await self._call(gateways, "POST", path, key, headers=headers, json=body)
            if answer.status == 200:
                return str(answer.body["request_id"])
            self.broken.append(f"a submit was answered with {answer.status}: {answer.body}")

    async def _follow(self, gateways: Iterator[Member], request_id: str, mine: Accepted) -> None:
        """Polls until every gateway tells that the request is completed. Its state must never go back."""
        path, completed, before = f"/queue/{APP}/requests/{request_id}/status", 0, State.IN_QUEUE
        while completed < len(self.fleet.gateways):
            await asyncio.sleep(PAUSE)
            answer = await self._call(gateways, "GET", path, mine.key)
            if answer.status not in (200, 202):
                self.broken.append(f"{request_id}: the status was answered with {answer.status}: {answer.body}")
                return
            self.counts["polls"] += 1
            state = State(answer.body["status"])
            if not self.fleet.is_calm(answer.gateway):
                self.counts["answers that may be old"] += 1
                continue
            if completed and state is not State.COMPLETED:
                self.broken.append(f"{request_id} went back from COMPLETED to {state}")
            mine.returns += before is State.IN_PROGRESS and state is State.IN_QUEUE
            completed += state is State.COMPLETED
            before = state
            if state is State.IN_QUEUE:
                self.places.tell(request_id, answer.body["queue_position"], answer.asked, answer.answered)

    async def _fetch(self, gateways: Iterator[Member], request_id: str, mine: Accepted) -> None:
        """Reads the result, twice, and the video."""
        path = f"/queue/{APP}/requests/{request_id}"
        answers = [await self._call(gateways, "GET", path, mine.key, is_result=True) for _ in range(2)]
        if answers[0].body != answers[1].body:
            self.broken.append(f"{request_id} has two results: {answers[0].body} {answers[1].body}")
        mine.result, mine.failed = answers[0].body, answers[0].status != 200
        if not mine.failed:
            video = await self._call(gateways, "GET", urlsplit(mine.result["video"]["url"]).path, mine.key)
            if len(video.body) != mine.result["video"]["file_size"]:
                self.broken.append(f"{request_id}: the video is not complete")

    async def _call(
        self, gateways: Iterator[Member], method: str, path: str, key: str, *, is_result: bool = False, **options: Any
    ) -> Answer:
        """Asks one gateway after the other until one gives an answer other than 503."""
        headers = {"Authorization": self.credentials[key]} | options.pop("headers", {})
        for gateway in gateways:
            asked = time.monotonic()
            try:
                timeout = aiohttp.ClientTimeout(total=CALL_TIMEOUT)
                call = self.http.request(method, gateway.url + path, headers=headers, timeout=timeout, **options)
                async with call as response:
                    is_json = response.content_type == "application/json"
                    body = await response.json() if is_json else await response.read()
                    answer = Answer(gateway, asked, time.monotonic(), response.status, dict(response.headers), body)
            except (aiohttp.ClientError, TimeoutError) as error:
                self.counts[f"calls that failed: {type(error).__name__}"] += 1
            else:
                is_outcome = is_result and "X-Fal-Error-Type" in answer.headers
                if answer.status != 503 or is_outcome:
                    if answer.status >= 500 and not is_outcome:
                        self.broken.append(f"{method} {path} was answered with {answer.status}: {answer.body}")
                    return answer
                self.counts["answers with 503"] += 1
                if "Retry-After" not in answer.headers:
                    self.broken.append(f"{method} {path}: a 503 without Retry-After")
            await asyncio.sleep(PAUSE)
        raise AssertionError("unreachable: there is always another gateway")
