import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from keyreel.events import Stage, Step
from keyreel.store import Store
from keyreel.store.records import JsonObject, Lease, LogLine, Standing
from keyreel.worker import attempt as module
from keyreel.worker.attempt import Attempt, InterruptedAttemptError, Interruption, insist

LEASE = Lease("id", 1, "endpoint", "key", {}, 5, None, 0.0)


class FakeQueue:
    """Answers each beat as told: with a standing, or an error of the database."""

    def __init__(self, *answers: Standing | Exception) -> None:
        self._answers = list(answers)
        self.lines: list[str] = []
        self.progress: JsonObject | None = None
        self.beats: asyncio.Queue[None] = asyncio.Queue()

    async def beat(self, _lease: Lease, progress: JsonObject | None, lines: Sequence[LogLine]) -> Standing:
        answer = self._answers.pop(0) if self._answers else Standing.CONTINUE
        self.beats.put_nowait(None)
        if isinstance(answer, Exception):
            raise answer
        self.lines += [line.message for line in lines]
        self.progress = progress or self.progress
        return answer


class FakeStore:
    def __init__(self, queue: FakeQueue) -> None:
        self.queue = queue
        self.database = self.requests = self
        self.changed = asyncio.Event()

    async def status(self, _request_id: str) -> None:
        return None


def new_attempt(*answers: Standing | Exception) -> tuple[Attempt, FakeQueue]:
    queue = FakeQueue(*answers)
    return Attempt(cast("Store", FakeStore(queue)), LEASE), queue


async def test_what_is_reported_is_told_at_once_and_together() -> None:
    attempt, queue = new_attempt()
    async with asyncio.timeout(module.BEAT - 0.5), attempt.kept():
        await queue.beats.get()
        attempt.note(Stage("denoise", 3))
        attempt.note(Step(1))
        await queue.beats.get()
    assert queue.lines == ["Denoising, 3 steps"]
    assert queue.progress
    assert queue.progress["step"] == 1
    assert queue.beats.qsize() <= 1


async def test_what_the_store_did_not_hear_is_told_again() -> None:
    attempt, queue = new_attempt(OSError("disk full"))
    attempt.report.write("Hello")
    await attempt.beat()
    assert not queue.lines
    await attempt.beat()
    await attempt.beat()
    assert queue.lines == ["Hello"]


@pytest.mark.parametrize(
    ("standing", "why"), [(Standing.CANCELLED, Interruption.CANCELLED), (Standing.LOST, Interruption.LOST)]
)
async def test_a_beat_learns_that_it_is_over(standing: Standing, why: Interruption) -> None:
    attempt, _ = new_attempt(standing)
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(InterruptedAttemptError) as caught:
        async with attempt.kept():
            await attempt.unless_interrupted(work())
    assert caught.value.why is why
    assert ended.is_set()


async def test_the_first_interruption_counts() -> None:
    attempt, _ = new_attempt()
    attempt.interrupt(Interruption.CANCELLED)
    attempt.interrupt(Interruption.RELEASED)
    assert await attempt.interrupted() is Interruption.CANCELLED
    with pytest.raises(InterruptedAttemptError):
        attempt.check()


async def test_an_outcome_waits_for_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSES", (0.0, 0.0))
    failures = [OSError("away"), OSError("away")]
    done: list[bool] = []

    async def finish() -> None:
        if failures:
            raise failures.pop()
        done.append(True)

    await insist(finish)
    assert done == [True]


async def test_an_outcome_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSES", (0.0, 0.0))

    async def finish() -> None:
        raise OSError("away")

    with pytest.raises(OSError, match="away"):
        await insist(finish)
