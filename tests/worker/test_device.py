import asyncio

import pytest

from keyreel.worker.device import DeviceLock


async def order_of(lock: DeviceLock[int], *priorities: int) -> list[int]:
    """Has waiters of these priorities queue up for a lock that is held, and returns the order in which they get it."""
    order: list[int] = []

    async def wait(index: int, priority: int) -> None:
        await lock.acquire(index, priority)
        assert lock.holder == index
        order.append(index)
        lock.release()

    tasks = [asyncio.create_task(wait(index, priority)) for index, priority in enumerate(priorities)]
    await asyncio.sleep(0)
    assert not order
    lock.release()
    await asyncio.gather(*tasks)
    return order


async def test_the_device_goes_to_the_highest_priority_and_then_to_the_first() -> None:
    lock: DeviceLock[int] = DeviceLock()
    await lock.acquire(9, 1)
    assert await order_of(lock, 1, 0, 1, 0) == [1, 3, 0, 2]
    assert lock.holder is None


@pytest.mark.parametrize("is_late", [False, True])
async def test_a_cancelled_waiter_does_not_keep_the_device(is_late: bool) -> None:
    """is_late: the cancellation arrives together with the device."""
    lock: DeviceLock[int] = DeviceLock()
    await lock.acquire(9, 0)
    cancelled, other = (asyncio.create_task(lock.acquire(priority, priority)) for priority in (0, 1))
    await asyncio.sleep(0)
    if is_late:
        lock.release()
    cancelled.cancel()
    await asyncio.wait([cancelled])
    if not is_late:
        lock.release()
    async with asyncio.timeout(10):
        await other
    assert lock.holder == 1
