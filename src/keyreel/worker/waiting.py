"""Waiting for several events at once."""

import asyncio


async def wait_for_any(*events: asyncio.Event, timeout: float | None = None) -> None:
    """Returns when one of the events is set, or after `timeout` seconds."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
