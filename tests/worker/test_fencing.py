"""A worker that cannot reach the database stops before its lease can expire."""

import asyncio
import os
import select
from collections.abc import Sequence
from typing import cast

import pytest

from keyreel.fal.outcomes import JsonObject
from keyreel.store import Store
from keyreel.store.changes import Changes
from keyreel.store.queue import Queue
from keyreel.store.records import Lease, LeaseStatus, LogLine
from keyreel.store.transitions import LEASE
from keyreel.worker import attempt as attempt_module
from keyreel.worker import runs as runs_module
from keyreel.worker.attempt import FENCE_MARGIN, Attempt, Interruption
from keyreel.worker.completion import give_up
from tests.worker.conftest import FAKE_ENGINE_PROCESS, Bench
from tests.worker.processes import children


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Network:
    """A store behind a network that is cut, or that takes its time for each heartbeat."""

    def __init__(self, clock: Clock, *, is_cut: bool = False, delay: float = 0.0) -> None:
        self.queue = self.database = self.requests = self
        self.changes = Changes()
        self._clock, self._is_cut, self._delay = clock, is_cut, delay

    async def heartbeat(self, _lease: Lease, _progress: JsonObject | None, _lines: Sequence[LogLine]) -> LeaseStatus:
        self._clock.now += self._delay
        if self._is_cut:
            raise TimeoutError
        return LeaseStatus.CONTINUE

    async def status(self, _request_id: str) -> None:
        return None


def attempt_over(network: Network, clock: Clock) -> Attempt:
    return Attempt(cast("Store", network), Lease("id", 1, "a/b", "key", {}, 5, None, 0.0), clock)


async def test_an_attempt_without_heartbeats_ends_before_its_lease() -> None:
    clock = Clock()
    attempt = attempt_over(Network(clock, is_cut=True), clock)
    clock.now = LEASE - FENCE_MARGIN
    async with attempt.heartbeats():
        assert await attempt.wait_for_interruption() is Interruption.CUT_OFF


async def test_an_attempt_with_heartbeats_goes_on() -> None:
    clock = Clock()
    attempt = attempt_over(Network(clock), clock)
    clock.now = LEASE - FENCE_MARGIN - 1
    await attempt.heartbeat()
    clock.now += LEASE - FENCE_MARGIN - 1
    done = asyncio.Event()
    watcher = asyncio.create_task(attempt._watch_lease(done))
    await asyncio.sleep(0)
    done.set()
    await watcher
    attempt.raise_if_interrupted()


async def test_a_lease_counts_from_when_the_heartbeat_was_sent() -> None:
    """The database renewed it at some moment after that; how long the answer took does not matter."""
    clock = Clock()
    attempt = attempt_over(Network(clock, delay=LEASE - FENCE_MARGIN), clock)
    await attempt.heartbeat()
    await attempt._watch_lease(asyncio.Event())
    assert await attempt.wait_for_interruption() is Interruption.CUT_OFF


@pytest.mark.parametrize("why", [Interruption.LOST, Interruption.CUT_OFF])
async def test_nothing_is_recorded_for_a_request_that_may_be_somebody_elses(why: Interruption) -> None:
    clock = Clock()
    network = Network(clock)
    await give_up(cast("Store", network).queue, attempt_over(network, clock), why)  # Network has no `finish`


@pytest.mark.slow
async def test_a_step_that_outlasts_the_lease_is_killed(each_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt_module, "LEASE", 1.0)
    for module in (attempt_module, runs_module):
        monkeypatch.setattr(module, "FENCE_MARGIN", 0.5)
    async with each_bench.worker():
        await each_bench.output(await each_bench.submit())
        (first,) = children(FAKE_ENGINE_PROCESS[-1])
        handle = os.pidfd_open(first)
        await each_bench.wait_for_step(await each_bench.submit("hang"), 0)
        monkeypatch.setattr(Queue, "heartbeat", _away)
        ended, _, _ = await asyncio.to_thread(select.select, [handle], [], [], 20)
        os.close(handle)
    assert ended


async def _away(*_arguments: object) -> LeaseStatus:
    raise TimeoutError
