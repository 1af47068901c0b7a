import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from keyreel.fal.outcomes import JsonObject
from keyreel.store import Store
from keyreel.store.changes import Changes, Topic
from keyreel.store.records import Lease, LeaseStatus, LogLine
from keyreel.video.events import Stage, Step
from keyreel.worker import attempt as module
from keyreel.worker.attempt import Attempt, InterruptedAttemptError, Interruption

LEASE = Lease("id", 1, "endpoint", "key", {}, 5, None, 0.0)


class FakeQueue:
    """Answers each heartbeat with the next of the given answers: a status, or an error to raise."""

    def __init__(self, *answers: LeaseStatus | Exception) -> None:
        self._answers = list(answers)
        self.lines: list[str] = []
        self.progress: JsonObject | None = None
        self.heartbeats: asyncio.Queue[None] = asyncio.Queue()

    async def heartbeat(self, _lease: Lease, progress: JsonObject | None, lines: Sequence[LogLine]) -> LeaseStatus:
        answer = self._answers.pop(0) if self._answers else LeaseStatus.CONTINUE
        self.heartbeats.put_nowait(None)
        if isinstance(answer, Exception):
            raise answer
        self.lines += [line.message for line in lines]
        self.progress = progress or self.progress
        return answer


class FakeStore:
    def __init__(self, queue: FakeQueue) -> None:
        self.queue = queue
        self.database = self
        self.changes = Changes()


def new_attempt(*answers: LeaseStatus | Exception) -> tuple[Attempt, FakeQueue]:
    queue = FakeQueue(*answers)
    return Attempt(cast("Store", FakeStore(queue)), LEASE), queue


@pytest.mark.slow
async def test_a_new_stage_is_sent_soon_and_steps_with_the_next_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_PAUSE", 3600.0)
    attempt, queue = new_attempt()
    async with asyncio.timeout(10), attempt.heartbeats():
        await queue.heartbeats.get()
        attempt.record(Stage("denoise", 3))
        await queue.heartbeats.get()
        attempt.record(Step(1))
        await asyncio.sleep(2 * module.STAGE_PAUSE)
        assert not queue.heartbeats.qsize(), "a step waits for the pause between heartbeats"
        attempt.record(Stage("decode", 9))
        await queue.heartbeats.get()
    assert queue.lines == ["Denoising, 3 steps", "Decoding, 9 frames"]
    assert queue.progress
    assert queue.progress["stage"] == "decode"


async def test_a_step_is_sent_after_the_pause_without_waiting_for_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_PAUSE", 0.3)
    monkeypatch.setattr(module, "HEARTBEAT_INTERVAL", 3600.0)
    attempt, queue = new_attempt()
    async with asyncio.timeout(10), attempt.heartbeats():
        attempt.record(Stage("denoise", 3))
        await queue.heartbeats.get()
        attempt.record(Step(1))
        await queue.heartbeats.get()
    assert queue.progress
    assert queue.progress["step"] == 1


async def test_a_cancel_is_noticed_at_once_and_others_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_PAUSE", 3600.0)
    attempt, queue = new_attempt(LeaseStatus.CONTINUE, LeaseStatus.CANCELLED)
    changes = attempt._store.database.changes
    async with asyncio.timeout(10), attempt.heartbeats():
        await queue.heartbeats.get()
        changes.wake(Topic.CANCEL, "another")
        for _ in range(5):
            await asyncio.sleep(0)
        assert not queue.heartbeats.qsize()
        changes.wake(Topic.CANCEL, LEASE.id)
        assert await attempt.wait_for_interruption() is Interruption.CANCELLED
    assert queue.heartbeats.qsize() == 1


async def test_a_failed_heartbeat_is_followed_by_one_with_the_same_lines() -> None:
    attempt, queue = new_attempt(OSError("disk full"))
    attempt.report.write("Hello")
    await attempt.heartbeat()
    assert not queue.lines
    await attempt.heartbeat()
    await attempt.heartbeat()
    assert queue.lines == ["Hello"]


@pytest.mark.parametrize(
    ("status", "why"), [(LeaseStatus.CANCELLED, Interruption.CANCELLED), (LeaseStatus.LOST, Interruption.LOST)]
)
async def test_a_heartbeat_interrupts_a_cancelled_or_lost_attempt(status: LeaseStatus, why: Interruption) -> None:
    attempt, _ = new_attempt(status)
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(InterruptedAttemptError) as caught:
        async with attempt.heartbeats():
            await attempt.unless_interrupted(work())
    assert caught.value.why is why
    assert ended.is_set()


async def test_the_first_interruption_counts() -> None:
    attempt, _ = new_attempt()
    attempt.interrupt(Interruption.CANCELLED)
    attempt.interrupt(Interruption.RELEASED)
    assert await attempt.wait_for_interruption() is Interruption.CANCELLED
    with pytest.raises(InterruptedAttemptError):
        attempt.raise_if_interrupted()


async def test_a_preemption_that_came_too_late_is_forgotten_and_others_count() -> None:
    attempt, _ = new_attempt()
    attempt.interrupt(Interruption.PREEMPTED)
    attempt.forget_preemption()
    attempt.raise_if_interrupted()
    attempt.interrupt(Interruption.CANCELLED)
    attempt.forget_preemption()
    with pytest.raises(InterruptedAttemptError, match="CANCELLED"):
        attempt.raise_if_interrupted()
