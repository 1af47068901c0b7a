import asyncio
import gc
import time
from collections.abc import Mapping
from typing import Any

import pytest

from keyreel.worker.waiting import start_shared, wait_for_any


@pytest.mark.parametrize("index", [0, 1])
async def test_it_returns_when_one_of_the_events_is_set(index: int) -> None:
    events = asyncio.Event(), asyncio.Event()
    waiter = asyncio.create_task(wait_for_any(*events))
    await asyncio.sleep(0.01)
    assert not waiter.done()
    events[index].set()
    async with asyncio.timeout(5):
        await waiter


async def test_it_returns_at_once_when_an_event_is_already_set() -> None:
    event = asyncio.Event()
    event.set()
    async with asyncio.timeout(5):
        await wait_for_any(asyncio.Event(), event)


async def test_it_returns_after_the_timeout() -> None:
    started = time.monotonic()
    async with asyncio.timeout(5):
        await wait_for_any(asyncio.Event(), timeout=0.05)
    assert time.monotonic() - started >= 0.04


async def test_no_task_is_left_behind() -> None:
    before = asyncio.all_tasks()
    await wait_for_any(asyncio.Event(), asyncio.Event(), timeout=0.01)
    await asyncio.sleep(0.01)
    assert asyncio.all_tasks() == before
    waiter = asyncio.create_task(wait_for_any(asyncio.Event()))
    await asyncio.sleep(0.01)
    waiter.cancel()
    await asyncio.wait([waiter])
    await asyncio.sleep(0.01)
    assert asyncio.all_tasks() == before


async def test_shared_work_ends_also_when_nobody_waits_any_more() -> None:
    ended, fails = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await fails.wait()
        ended.set()
        raise OSError("away")

    unseen: list[Mapping[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
    shared = start_shared(work())
    waiters = [asyncio.create_task(_wait(shared)) for _ in range(2)]
    await asyncio.sleep(0)
    for waiter in waiters:
        waiter.cancel()
    await asyncio.wait(waiters)
    fails.set()
    await ended.wait()
    await asyncio.sleep(0)
    del shared
    gc.collect()
    assert not unseen


async def _wait(shared: asyncio.Task[None]) -> None:
    await asyncio.shield(shared)
