"""The device draws one request while the videos of others are still being written."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from keyreel.store import Store, open_store
from keyreel.store.records import State
from keyreel.store.submission import MAX_FAILURES
from keyreel.video.canvas import Size
from keyreel.video.events import Notice, Step
from keyreel.video.job import AdapterFile, Job, Prepared
from keyreel.worker.attempt import Attempt, InterruptedAttemptError, Interruption
from keyreel.worker.checkpoints import Checkpoints
from keyreel.worker.inputs import RetryableError
from keyreel.worker.messages import (
    Drawn,
    Failed,
    Finished,
    GuardReady,
    Message,
    Preload,
    Run,
    Spooled,
    Stop,
    Stopped,
    Unwritten,
)
from keyreel.worker.previews import Previews
from keyreel.worker.process import Process, ProcessGoneError
from keyreel.worker.runs import EngineRun, Runs
from tests.store.conftest import Clock, wipe
from tests.worker.conftest import FAKE_ENGINE_PROCESS, PATIENCE, Bench, Gate, new_bench
from tests.worker.processes import children
from tests.worker.test_attempt import LEASE, FakeQueue, FakeStore

JOB = Job("a red circle", "", Size(32, 32), 9, 2, 25, 5)
LORA = AdapterFile(Path("lora"), "lora", "0" * 64, 1.0, ("loras", 0, "path"))
KILLED = "was killed by signal 9"


class FakeProcess:
    """An engine process that says what the test has it say."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.is_killed = False
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue()

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def receive(self) -> Message:
        if message := await self._messages.get():
            return message
        self.die()
        raise ProcessGoneError(KILLED)

    def kill(self) -> None:
        self.is_killed = True
        self.die()

    def die(self) -> None:
        self._messages.put_nowait(None)

    def say(self, *messages: Message) -> None:
        for message in messages:
            self._messages.put_nowait(message)


class Engine:
    """The runs of a fake process."""

    def __init__(self, patience: float) -> None:
        self.process = FakeProcess()
        self.runs = Runs(cast("Process", self.process), patience)

    @contextmanager
    def run(self, attempt: Attempt, job: Job = JOB) -> Iterator[EngineRun]:
        spooled = Spooled(Prepared(job, {}), ())
        with self.runs.open(attempt, Run(attempt.id, spooled, Path(), Path("video.mp4"), {})) as run:
            yield run

    @property
    def preloads(self) -> list[Message]:
        return [message for message in self.process.sent if isinstance(message, Preload)]

    async def begin(self, run: EngineRun) -> "asyncio.Task[None]":
        """Begins to draw. Returns when the process has its order."""
        before = len(self.process.sent)
        task = asyncio.create_task(run.draw(cast("Previews", None), cast("Checkpoints", None)))
        await until(lambda: len(self.process.sent) > before)
        return task


@asynccontextmanager
async def an_engine(patience: float = PATIENCE) -> AsyncIterator[Engine]:
    engine = Engine(patience)
    async with engine.runs.routing(), asyncio.timeout(PATIENCE):
        yield engine


def new_attempt(name: str, number: int = 1) -> Attempt:
    return Attempt(cast("Store", FakeStore(FakeQueue())), replace(LEASE, id=name, attempt=number))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


async def test_messages_reach_their_run() -> None:
    a, b = new_attempt("a"), new_attempt("b")
    async with an_engine() as engine:
        with engine.run(a) as first, engine.run(b) as second:
            drawing = await engine.begin(first)
            engine.process.say(Notice("of a"), Drawn(a.id))
            await drawing
            drawing = await engine.begin(second)
            finishing = asyncio.create_task(first.finish())
            engine.process.say(Notice("of b"), Finished(a.id, 1), Finished("of nobody", 1), Step(1), Drawn(b.id))
            await finishing
            await drawing
            engine.process.say(Finished(b.id, 1))
            await second.finish()
    assert [[line.message for line in attempt.report.unsent()[1]] for attempt in (a, b)] == [["of a"], ["of b"]]


async def test_loras_are_read_while_another_run_is_drawn() -> None:
    styled = replace(JOB, adapters=(LORA,))
    a, b, c = new_attempt("a"), new_attempt("b"), new_attempt("c")
    async with an_engine() as engine:
        with engine.run(a, styled) as first, engine.run(b) as second, engine.run(c, styled) as third:
            await first.preload()  # it is drawn at once
            drawing = await engine.begin(first)
            await second.preload()
            assert not engine.preloads
            await third.preload()
            assert engine.preloads == [Preload((LORA,))]
            engine.process.say(Drawn(a.id))
            await drawing


@pytest.mark.parametrize(
    ("why", "keep"), [(Interruption.CANCELLED, False), (Interruption.LOST, False), (Interruption.RELEASED, True)]
)
async def test_a_drawn_run_can_be_stopped(why: Interruption, *, keep: bool) -> None:
    attempt = new_attempt("a")
    async with an_engine() as engine:
        with engine.run(attempt) as run:
            drawing = await engine.begin(run)
            engine.process.say(Drawn(attempt.id))
            await drawing
            finishing = asyncio.create_task(run.finish())
            attempt.interrupt(why)
            await until(lambda: Stop(attempt.id, keep) in engine.process.sent)
            engine.process.say(Stopped(attempt.id))
            with pytest.raises(InterruptedAttemptError) as error:
                await finishing
            assert error.value.why is why


async def test_a_preemption_that_comes_after_the_last_frame_is_ignored() -> None:
    attempt = new_attempt("a")
    async with an_engine() as engine:
        with engine.run(attempt) as run:
            drawing = await engine.begin(run)
            attempt.interrupt(Interruption.PREEMPTED)
            engine.process.say(Drawn(attempt.id), Finished(attempt.id, 1))
            await drawing
            await run.finish()
            attempt.raise_if_interrupted()


async def test_a_run_whose_video_cannot_be_written_is_repeated() -> None:
    attempt = new_attempt("a")
    async with an_engine() as engine:
        with engine.run(attempt) as run:
            drawing = await engine.begin(run)
            engine.process.say(Drawn(attempt.id), Unwritten(attempt.id, "OSError: disk full"))
            await drawing
            with pytest.raises(RetryableError, match="The video could not be written: OSError: disk full"):
                await run.finish()
    assert not engine.process.is_killed


@pytest.mark.parametrize("is_drawn", [False, True])
async def test_a_process_that_answers_nonsense_is_killed(*, is_drawn: bool) -> None:
    attempt = new_attempt("a")
    async with an_engine() as engine:
        with engine.run(attempt) as run:
            drawing = await engine.begin(run)
            engine.process.say(Drawn(attempt.id) if is_drawn else GuardReady(), Drawn(attempt.id))
            with pytest.raises(RetryableError, match=r"answered with (Drawn|GuardReady)"):
                await drawing
                await run.finish()
    assert engine.process.is_killed


@pytest.mark.parametrize(("number", "is_blamed"), [(1, False), (MAX_FAILURES, False), (MAX_FAILURES + 1, True)])
async def test_the_death_of_the_process_is_blamed_on_the_run_on_the_device(number: int, *, is_blamed: bool) -> None:
    written, drawn = new_attempt("written", number), new_attempt("drawn")
    async with an_engine() as engine:
        with engine.run(written) as first, engine.run(drawn) as second:
            drawing = await engine.begin(first)
            engine.process.say(Drawn(written.id))
            await drawing
            drawing, finishing = await engine.begin(second), asyncio.create_task(first.finish())
            engine.process.die()
            with pytest.raises(RetryableError, match=KILLED):
                await drawing
            if is_blamed:
                with pytest.raises(RetryableError, match=KILLED):
                    await finishing
            else:
                with pytest.raises(InterruptedAttemptError) as error:
                    await finishing
                assert error.value.why is Interruption.RELEASED


async def test_a_device_that_is_lost_costs_a_drawn_run_no_failure() -> None:
    """The process ends itself then, and discards what it is writing."""
    written, drawn = new_attempt("written"), new_attempt("drawn")
    async with an_engine() as engine:
        with engine.run(written) as first, engine.run(drawn) as second:
            drawing = await engine.begin(first)
            engine.process.say(Drawn(written.id))
            await drawing
            drawing, finishing = await engine.begin(second), asyncio.create_task(first.finish())
            engine.process.say(Failed("an illegal access", poisoned=True), Stopped(written.id))
            with pytest.raises(RetryableError, match="lost its device: an illegal access"):
                await drawing
            with pytest.raises(InterruptedAttemptError):
                await finishing


async def test_a_video_that_takes_too_long_to_write_is_blamed_and_not_the_run_on_the_device() -> None:
    written, drawn = new_attempt("written"), new_attempt("drawn")
    async with an_engine(patience=0.05) as engine:
        with engine.run(written) as first, engine.run(drawn) as second:
            drawing = await engine.begin(first)
            engine.process.say(Drawn(written.id))
            await drawing
            finishing = asyncio.create_task(first.finish())
            await asyncio.sleep(0)  # it waits now
            engine.runs.patience = PATIENCE
            drawing = await engine.begin(second)
            with pytest.raises(RetryableError, match="did not respond"):
                await finishing
            with pytest.raises(InterruptedAttemptError):
                await drawing


async def test_a_run_of_a_dead_process_ends_at_once() -> None:
    async with an_engine() as engine:
        engine.process.die()
        await until(lambda: engine.runs.is_over)
        with engine.run(new_attempt("a")) as run:
            drawing = await engine.begin(run)
            with pytest.raises(RetryableError, match=KILLED):
                await drawing


@pytest.fixture
def encode(tmp_path: Path) -> Gate:
    """The fake engine's frames pass this gate when they are encoded, if the prompt is `encode.prompt`."""
    gate = Gate(tmp_path / "encode")
    gate.prompt = gate.prompt.replace("gate=", "encode=")
    return gate


@pytest.mark.slow
async def test_the_device_does_not_wait_for_the_encoder(gate: Gate, encode: Gate, tmp_path: Path) -> None:
    async with open_store(f"sqlite:///{tmp_path / 'keyreel.db'}", Clock.now) as store:
        await wipe(store.database)
        bench, clock = new_bench(store, tmp_path), Clock(store.database)
        async with bench.worker():
            first = await bench.submit(encode.prompt)
            second = await bench.submit(gate.prompt, number_of_steps=2)
            gate.open()
            await bench.wait_for_step(second, 1)
            assert (await bench.wait_until(first, lambda _: True)).state is State.IN_PROGRESS
            await clock.advance(10)  # only the second request uses the device now
            encode.open()
            await bench.output(first)
            gate.open()
            await bench.output(second)
            assert (await bench.log(first))[-1].startswith("Finished after ")
        (used,) = await store.usage.days(0, 100)
    assert (used.completed, used.device_seconds) == (2, 10)


@pytest.mark.slow
async def test_a_draining_worker_finishes_what_it_has_drawn(bench: Bench, gate: Gate, encode: Gate) -> None:
    stop = asyncio.Event()
    async with bench.worker(stop=stop, grace=0.0):
        first, second = await bench.submit(encode.prompt), await bench.submit(gate.prompt)
        gate.open()
        await bench.wait_for_step(second, 1)
        stop.set()
        gate.open()
        encode.open()
        await bench.output(first)
    assert (await bench.completed(first)).attempt == 1


@pytest.mark.slow
async def test_a_request_that_kills_the_engine_costs_a_drawn_one_no_failure(
    each_bench: Bench, encode: Gate, tmp_path: Path
) -> None:
    async with each_bench.worker():
        drawn = await each_bench.submit(encode.prompt, retry=False)
        deadly = await each_bench.submit("die", retry=False)
        assert (await each_bench.failure(deadly)).message == "The engine process was killed by signal 9"
        encode.open()
        video = await each_bench.video(drawn, tmp_path / "video.mp4")
        assert "The engine process ended at another request; this one will continue" in await each_bench.log(drawn)
        undisturbed = await each_bench.submit(encode.prompt)
        encode.open()
        assert await each_bench.video(undisturbed, tmp_path / "video.mp4") == video


@pytest.mark.slow
async def test_a_killed_engine_process_costs_the_video_that_it_encodes_an_attempt(bench: Bench, encode: Gate) -> None:
    async with bench.worker(settings=bench.settings(checkpoint_every=0.01)):
        request = await bench.submit(encode.prompt)
        await bench.wait_until(request, lambda status: status.progress and status.progress["stage"] == "decode")
        (engine,) = children(FAKE_ENGINE_PROCESS[-1])
        os.kill(engine, signal.SIGKILL)
        while engine in children(FAKE_ENGINE_PROCESS[-1]):
            await asyncio.sleep(0.01)  # it could pass the gate before it dies
        encode.open()
        await bench.output(request)
        assert (await bench.completed(request)).attempt == 2
        assert "Attempt 1 failed: The engine process was killed by signal 9" in await bench.log(request)


@pytest.mark.slow
async def test_an_encoder_that_fails_costs_no_other_request(bench: Bench, tmp_path: Path) -> None:
    async with bench.worker():
        failing = await bench.submit(f"encode={tmp_path / 'missing'}", retry=False)
        other = await bench.submit()
        failure = await bench.failure(failing)
        assert failure.message.startswith("The video could not be written: FileNotFoundError: ")
        await bench.output(other)
        assert (await bench.completed(other)).attempt == 1
