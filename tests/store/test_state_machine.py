"""Compares the queue with a small model under random sequences of calls by workers, clients, reaper and clock."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select

from keyreel.fal.outcomes import CANCELLED, START_TIMEOUT, WORKER_LOST, Failure, Outcome, Success
from keyreel.store import Store
from keyreel.store.queue import RETRY_PAUSE, WAITING
from keyreel.store.records import Cancellation, Lease, LeaseLostError, LeaseStatus, Limits, LogLine, Priority, State
from keyreel.store.submission import MAX_FAILURES
from keyreel.store.tables import delivery, event
from keyreel.store.tables import request as request_table
from keyreel.store.transitions import LEASE
from keyreel.store.usage import counted_as
from tests.store.conftest import Clock, empty_store, wipe
from tests.store.steps import WEBHOOK, live_requests, new_request

T = TypeVar("T")
RETENTION = 100.0
LIMITED = "limited"
"""The id of a key that runs one request at a time."""
COUNTED = ("completed", "failed", "cancelled", "device_seconds")
BROKEN = Failure("CUDA error", "internal_error")


@dataclass
class Model:
    """The expected state of a request. Times are seconds since the start."""

    order: tuple[Priority, int, int]
    """Priority, turn and number of the submit."""
    key_id: str
    webhook: bool
    max_failures: int
    start_deadline: float | None
    not_before: float
    state: State = State.IN_QUEUE
    attempt: int = 0
    failures: int = 0
    lease_until: float = 0.0
    cancel_requested: bool = False
    checkpoint: str | None = None
    progress: object = None
    lines: list[str] = field(default_factory=list)
    outcome: Outcome | None = None
    finished: float = 0.0
    device_since: float | None = None
    device_seconds: float = 0.0
    worker: str | None = None

    @property
    def is_held_up(self) -> bool:
        is_waiting = self.progress == {"stage": WAITING} and self.device_since is None
        return self.state is State.IN_PROGRESS and is_waiting and not self.cancel_requested

    def holds(self, attempt: int) -> bool:
        return self.state is State.IN_PROGRESS and self.attempt == attempt

    def startable(self, now: float) -> bool:
        on_time = self.start_deadline is None or now < self.start_deadline
        return self.state is State.IN_QUEUE and self.not_before <= now and on_time

    def end_lease(self) -> None:
        if self.device_since is not None:
            self.device_seconds += max(0.0, self.lease_until - LEASE - self.device_since)
            self.device_since = None

    def complete(self, outcome: Outcome, now: float) -> None:
        assert self.state is not State.COMPLETED
        self.end_lease()
        self.state, self.outcome, self.finished, self.checkpoint = State.COMPLETED, outcome, now, None

    def release(self, failure: Failure | None, now: float, pause: float) -> None:
        if self.cancel_requested:
            self.complete(CANCELLED, now)
        elif failure and self.failures + 1 == self.max_failures:
            self.complete(failure, now)
        else:
            self.end_lease()
            self.state, self.not_before, self.start_deadline = State.IN_QUEUE, now + pause, None
            self.failures += failure is not None


class QueueMachine(RuleBasedStateMachine):
    """Leases stay in their bundle after they are lost, so that the rules also test workers with an expired lease."""

    ids = Bundle("ids")
    leases = Bundle("leases")

    def __init__(self, runner: asyncio.Runner, store: Store) -> None:
        super().__init__()
        self.runner, self.store, self.clock = runner, store, Clock(store.database)
        self.now = 0.0
        self.submitted = 0
        self.models: dict[str, Model] = {}
        self.deleted: list[Model] = []
        self.run(wipe(store.database))
        self.run(store.keys.put(LIMITED, "secret", "runs one request at a time", limits=Limits(max_running=1)))

    def run(self, action: Awaitable[T]) -> T:
        async def wait() -> T:
            return await action

        return self.runner.run(wait())

    def next_turn(self, key_id: str, priority: Priority) -> int:
        lane = [model for model in self.models.values() if model.order[0] is priority]
        given = [model.order[1] for model in lane if model.attempt]
        waiting = [model.order[1] for model in lane if model.state is State.IN_QUEUE]
        own = [model.order[1] for model in lane if model.key_id == key_id and model.state is not State.COMPLETED]
        return max(max(given, default=0), min(waiting, default=0), max(own, default=-1) + 1)

    def may_run(self, key_id: str) -> bool:
        running = (model.key_id for model in self.models.values() if model.state is State.IN_PROGRESS)
        return key_id != LIMITED or LIMITED not in running

    def held(self, lease: Lease) -> Model | None:
        model = self.models.get(lease.id)
        return model if model and model.holds(lease.attempt) else None

    def run_as_holder(self, lease: Lease, action: Awaitable[None]) -> Model | None:
        """Runs the action. Checks that it raises LeaseLostError if the lease is lost, and returns None then."""
        model = self.held(lease)
        if model:
            self.run(action)
        else:
            with pytest.raises(LeaseLostError):
                self.run(action)
        return model

    @rule(
        target=ids,
        key_id=st.sampled_from(["one", "two", LIMITED]),
        priority=st.sampled_from(Priority),
        webhook=st.booleans(),
        retry=st.booleans(),
        start_timeout=st.sampled_from([None, 20.0]),
    )
    def submit(self, key_id: str, priority: Priority, webhook: bool, retry: bool, start_timeout: float | None) -> str:
        model = Model(
            (priority, self.next_turn(key_id, priority), self.submitted),
            key_id,
            webhook,
            MAX_FAILURES if retry else 1,
            None if start_timeout is None else self.now + start_timeout,
            self.now,
        )
        request = new_request(
            key_id=key_id,
            priority=priority,
            webhook_url=WEBHOOK if webhook else None,
            retry=retry,
            start_timeout=start_timeout,
            retention=RETENTION,
            seed=self.submitted,
        )
        answer = self.run(self.store.queue.submit(request))
        assert answer.position == sum(
            other.state is State.IN_QUEUE and other.order < model.order for other in self.models.values()
        )
        self.submitted += 1
        self.models[answer.id] = model
        return answer.id

    @rule(target=leases, worker=st.sampled_from("ab"))
    def claim(self, worker: str) -> object:
        has_work = self.run(self.store.queue.has_work())
        lease = self.run(self.store.queue.claim(worker))
        startable = {
            request_id: model
            for request_id, model in self.models.items()
            if model.startable(self.now) and self.may_run(model.key_id)
        }
        assert has_work == bool(startable)
        if not startable:
            assert lease is None
            return multiple()
        assert lease is not None
        request_id, model = min(startable.items(), key=lambda item: item[1].order)
        model.state, model.attempt = State.IN_PROGRESS, model.attempt + 1
        model.lease_until, model.device_since, model.progress = self.now + LEASE, None, None
        model.worker = worker
        assert (lease.id, lease.attempt, lease.checkpoint) == (request_id, model.attempt, model.checkpoint)
        assert lease.seed == model.order[2]
        return lease

    @rule(target=leases, worker=st.sampled_from("ab"))
    def take_over(self, worker: str) -> object:
        others = {key: model for key, model in self.models.items() if model.worker != worker}
        held_up = {key: model for key, model in others.items() if model.is_held_up}
        if held_up:
            assert self.run(self.store.queue.has_work(besides=worker))
        lease = self.run(self.store.queue.take_over(worker))
        if not held_up:
            assert lease is None
            return multiple()
        assert lease is not None
        request_id, model = min(held_up.items(), key=lambda item: item[1].order)
        model.attempt, model.worker, model.lease_until, model.progress = (
            model.attempt + 1,
            worker,
            self.now + LEASE,
            None,
        )
        assert (lease.id, lease.attempt, lease.checkpoint) == (request_id, model.attempt, model.checkpoint)
        return lease

    @rule(lease=leases)
    def wait_for_the_device(self, lease: Lease) -> None:
        self.run(self.store.queue.heartbeat(lease, {"stage": WAITING}))
        if model := self.held(lease):
            model.lease_until, model.progress = self.now + LEASE, {"stage": WAITING}

    @rule(lease=leases, progress=st.none() | st.integers(0, 30), lines=st.lists(st.text(max_size=3), max_size=2))
    def heartbeat(self, lease: Lease, progress: int | None, lines: list[str]) -> None:
        report = None if progress is None else {"done": progress}
        lease_status = self.run(self.store.queue.heartbeat(lease, report, [LogLine(line) for line in lines]))
        model = self.held(lease)
        if not model:
            assert lease_status is LeaseStatus.LOST
            return
        assert lease_status is (LeaseStatus.CANCELLED if model.cancel_requested else LeaseStatus.CONTINUE)
        model.lease_until = self.now + LEASE
        model.progress = report or model.progress
        model.lines += lines

    @rule(lease=leases)
    def enter_device(self, lease: Lease) -> None:
        model = self.held(lease)
        assert self.run(self.store.queue.enter_device(lease)) is (model is not None)
        if model:
            model.device_since, model.start_deadline = self.now, None

    @rule(lease=leases)
    def leave_device(self, lease: Lease) -> None:
        self.run(self.store.queue.leave_device(lease))
        model = self.held(lease)
        if model and model.device_since is not None:
            model.device_seconds += self.now - model.device_since
            model.device_since = None

    @rule(lease=leases)
    def save_checkpoint(self, lease: Lease) -> None:
        name = f"{lease.id}/{lease.attempt}"
        if model := self.run_as_holder(lease, self.store.queue.save_checkpoint(lease, name)):
            model.checkpoint = name

    @rule(lease=leases, failed=st.booleans())
    def finish(self, lease: Lease, failed: bool) -> None:
        outcome = BROKEN if failed else Success({"attempt": lease.attempt})
        model = self.models.get(lease.id)
        if model and (model.attempt, model.outcome) == (lease.attempt, outcome):
            self.run(self.store.queue.finish(lease, outcome))  # repeats the call that completed the request
        elif model := self.run_as_holder(lease, self.store.queue.finish(lease, outcome)):
            model.complete(outcome, self.now)

    @rule(lease=leases)
    def retry(self, lease: Lease) -> None:
        if model := self.run_as_holder(lease, self.store.queue.retry(lease, BROKEN)):
            model.release(BROKEN, self.now, RETRY_PAUSE * 2**model.failures)

    @rule(lease=leases)
    def hand_back(self, lease: Lease) -> None:
        if model := self.run_as_holder(lease, self.store.queue.hand_back(lease)):
            model.release(None, self.now, 0.0)

    @rule(request_id=ids)
    def cancel(self, request_id: str) -> None:
        answer = self.run(self.store.queue.cancel(request_id))
        model = self.models.get(request_id)
        if model is None:
            assert answer is Cancellation.UNKNOWN
        elif model.state is State.COMPLETED:
            assert answer is Cancellation.ALREADY_COMPLETED
        elif model.state is State.IN_PROGRESS:
            assert answer is Cancellation.REQUESTED
            model.cancel_requested = True
        else:
            assert answer is Cancellation.REMOVED
            model.complete(CANCELLED, self.now)

    @rule()
    def reap(self) -> None:
        self.run(self.store.queue.reap())
        for model in self.models.values():
            if model.state is State.IN_PROGRESS and model.lease_until <= self.now:
                model.release(WORKER_LOST, self.now, 0.0)
        for model in self.models.values():
            is_waiting = model.state is State.IN_QUEUE or model.is_held_up
            if is_waiting and model.start_deadline and model.start_deadline <= self.now:
                model.complete(START_TIMEOUT, self.now)
        self.deleted += [model for model in self.models.values() if self.is_deleted(model)]
        self.models = {key: model for key, model in self.models.items() if not self.is_deleted(model)}

    def is_deleted(self, model: Model) -> bool:
        """A request with a webhook is kept, because its delivery is never made in this test."""
        return model.state is State.COMPLETED and model.finished + RETENTION <= self.now and not model.webhook

    @rule(seconds=st.sampled_from([1.0, 10.0, LEASE, RETENTION]))
    def time_passes(self, seconds: float) -> None:
        self.run(self.clock.advance(seconds))
        self.now += seconds

    @rule(request_id=consumes(ids))
    def forget(self, request_id: str) -> None:
        """Removes an old id, so that other rules draw newer ones."""

    @invariant()
    def the_rows_agree_with_the_model(self) -> None:
        requests, delivered, lines = self.run(self.rows())
        assert requests == {key: self.expected(model) for key, model in self.models.items()}
        ended = [key for key, model in self.models.items() if model.state is State.COMPLETED and model.webhook]
        assert delivered == Counter(ended)
        written = [(key, line) for key, model in self.models.items() for line in model.lines]
        assert Counter(lines) == Counter((key, clean(line)) for key, line in written)

    @invariant()
    def every_ended_request_is_counted_once_for_its_key(self) -> None:
        used: dict[str, Counter[str]] = {}
        for day in self.run(self.store.usage.days(0, 100)):
            used.setdefault(day.key_id, Counter()).update({name: getattr(day, name) for name in COUNTED})
        expected: dict[str, Counter[str]] = {}
        for model in (*self.models.values(), *self.deleted):
            if model.outcome is not None:
                seconds = {"device_seconds": int(model.device_seconds)}
                expected.setdefault(model.key_id, Counter()).update({counted_as(model.outcome): 1}, **seconds)
        assert used == expected

    @invariant()
    def positions_count_up(self) -> None:
        live = self.run(live_requests(self.store))
        expected = sorted(
            (model.order, key) for key, model in self.models.items() if model.state is not State.COMPLETED
        )
        assert [status.id for status in live] == [key for _, key in expected]
        waiting = [status.position for status in live if status.state is State.IN_QUEUE]
        assert waiting == list(range(len(waiting)))
        queue = self.run(self.store.requests.queue())
        assert queue == {each.id: (each.position, each.attempt) for each in live if each.state is State.IN_QUEUE}

    async def rows(self) -> tuple[dict[str, object], Counter[str], list[tuple[str, str]]]:
        columns = request_table.c
        names = ("attempt", "failures", "cancel_requested", "checkpoint", "progress", "log_lines", "result", "error")
        chosen = [columns[name] for name in names]
        async with self.store.database.read() as connection:
            rows = await connection.execute(select(columns.id, columns.state, *chosen))
            requests: dict[str, object] = {row.id: tuple(row[1:]) for row in rows}
            deliveries = await connection.execute(select(delivery.c.request_id))
            events = await connection.execute(select(event.c.request_id, event.c.message))
            return requests, Counter(deliveries.scalars()), [(row[0], row[1]) for row in events]

    def expected(self, model: Model) -> object:
        result = model.outcome.output if isinstance(model.outcome, Success) else None
        error = model.outcome.message if isinstance(model.outcome, Failure) else None
        flags = (model.attempt, model.failures, model.cancel_requested, model.checkpoint)
        return (model.state, *flags, model.progress, len(model.lines), result, error)


def clean(line: str) -> str:
    """Replaces the characters that databases refuse."""
    return line.encode("utf-8", "replace").decode().replace("\0", "?")


@contextmanager
def opened(url: str) -> Iterator[tuple[asyncio.Runner, Store]]:
    """Opens a store outside a coroutine, because Hypothesis calls the rules one by one."""
    with asyncio.Runner() as runner:
        context = empty_store(url)
        store = runner.run(context.__aenter__())
        try:
            yield runner, store
        finally:
            runner.run(context.__aexit__(None, None, None))


@pytest.mark.slow
def test_the_queue_agrees_with_its_model(url: str) -> None:
    with opened(url) as (runner, store):

        class Machine(QueueMachine):
            def __init__(self) -> None:
                super().__init__(runner, store)

        run_state_machine_as_test(Machine, settings=settings(max_examples=20, stateful_step_count=40))
