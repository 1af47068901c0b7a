"""What happens to requests at a worker to which nothing happens."""

import asyncio
import os
import signal
from functools import partial
from pathlib import Path

import pytest

from keyreel.links import Access, access
from keyreel.store.records import NewRequest, State, Status
from tests.worker.conftest import ENDPOINT, FAKE_CHILD, FAKE_PREPARER, SEED, SMALL, Bench, Gate, steps_done
from tests.worker.processes import children
from tests.worker.site import Site, picture

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_next_request_is_prepared_while_the_device_is_busy(served: Bench, gate: Gate, site: Site) -> None:
    busy = await served.submit(gate.prompt, number_of_steps=2)
    gate.open()
    await served.at_step(busy, 1)
    following = await served.submit(images=[{"image_url": site.add("next.png", picture())}])
    third = await served.submit()
    await site.asked.wait()
    waiting = await served.until(following, lambda status: status.log_lines >= 2)
    assert waiting.state is State.IN_PROGRESS
    assert await served.log(following) == ["Fetching inputs", "Waiting for the device"]
    assert (await served.until(third, lambda _: True)).state is State.IN_QUEUE  # one waits, no more
    gate.open()
    for request in (busy, following, third):
        await served.output(request)


async def test_a_cancelled_request_frees_the_device_at_the_next_step(served: Bench, gate: Gate) -> None:
    cancelled = await served.submit(gate.prompt, number_of_steps=50)
    other = await served.submit()
    gate.open()
    await served.at_step(cancelled, 1)
    await served.store.queue.cancel(cancelled)
    for step in (2, 3, 4):  # one that was under way, one at whose end it stops; these ones take no time at all
        gate.open()
        await served.until(cancelled, partial(is_over_or_at, step))
    assert (await served.failure(cancelled)).type == "client_cancelled"
    await served.output(other)


async def test_a_request_is_cancelled_while_it_waits(served: Bench, gate: Gate) -> None:
    busy = await served.submit(gate.prompt)
    waiting = await served.submit()
    await served.until(waiting, lambda status: status.log_lines)
    await served.store.queue.cancel(waiting)
    assert (await served.failure(waiting)).type == "client_cancelled"
    gate.open(2)
    await served.output(busy)


async def test_a_video_is_kept_as_its_request_says(served: Bench) -> None:
    acl = {"default": "forbid"}
    request = NewRequest(
        endpoint=ENDPOINT, key_id="key", input=SMALL, seed=SEED, output_lifetime=3600.0, output_acl=acl
    )
    output = await served.output((await served.store.queue.submit(request)).id)
    ref = served.context.links.file_of(output["video"]["url"])
    assert ref
    file = await served.store.files.get(ref.id)
    assert file
    assert file.expires_at
    assert 3600 <= file.expires_at - file.created < 3700
    assert (file.acl, file.size) == (acl, output["video"]["file_size"])
    assert access(file, None) is Access.FORBID


async def test_nothing_accumulates(served: Bench) -> None:
    await served.output(await served.submit())
    before = len(asyncio.all_tasks()), _open_files()
    for request in [await served.submit() for _ in range(5)]:
        await served.output(request)
    tasks, files = len(asyncio.all_tasks()), _open_files()
    await served.output(await served.submit())
    assert tasks <= before[0] + 2
    assert files <= before[1] + 4


def is_over_or_at(step: int, status: Status) -> bool:
    return status.state is State.COMPLETED or steps_done(status) >= step


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_when_to_leave_is_the_supervisors_word(served: Bench, gate: Gate, number: signal.Signals) -> None:
    """A terminal's Ctrl-C and a service manager's stop reach the child as well."""
    request = await served.submit(gate.prompt)
    gate.open()
    await served.at_step(request, 1)
    for module in (FAKE_CHILD[-1], FAKE_PREPARER[-1]):
        (pid,) = children(module)
        os.kill(pid, number)
    gate.open()
    await served.output(request)
    assert (await served.completed(request)).attempt == 1
