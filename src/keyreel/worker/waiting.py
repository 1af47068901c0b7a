"""Waiting for several events at once, and several callers for the same work."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def wait_for_any(*events: asyncio.Event, timeout: float | None = None) -> None:
    """Returns when one of the events is set, or after `timeout` seconds."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def start_shared(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Starts work for which several callers wait, each with `asyncio.shield`.

    If it fails after all of them have been cancelled, asyncio does not log the error as one that nobody has seen.
    """
    task = asyncio.create_task(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task
