"""Tells the processes of a fleet about each other's changes, by PostgreSQL's LISTEN and NOTIFY.

A notification is a hint. It may be lost with a connection; then a poll finds the change a little later. So it need not
be part of the transaction, where it would make commits wait for each other.
"""

import asyncio
import secrets
from contextlib import suppress
from typing import Any

import asyncpg
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from keyreel.store.changes import Changes, Topic
from keyreel.store.errors import STORE_ERRORS

CHANNEL = "keyreel"
PAUSE = 0.02
"""Seconds between two rounds of notifications, so that a burst of changes costs one of each topic."""
CHECK_PERIOD = 15.0
"""Seconds after which a silent connection is tested: a cut network drops packets without an error."""
RECONNECT_PAUSE = 1.0
"""Seconds to wait after the connection was lost."""

_NOTIFY = "SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload"

_log = structlog.get_logger(__name__)


async def exchange_notifications(engine: AsyncEngine, changes: Changes) -> None:
    """Keeps one connection on which changes are told and heard of. Runs until it is cancelled."""
    while True:
        try:
            await _exchange(engine, changes)
        except STORE_ERRORS as error:
            _log.warning("notifications_interrupted", reason=str(error))
        await asyncio.sleep(RECONNECT_PAUSE)


async def _exchange(engine: AsyncEngine, changes: Changes) -> None:
    origin = secrets.token_hex(8)

    def on_notification(_connection: object, _pid: int, _channel: str, payload: object) -> None:
        sender, _, change = str(payload).partition(" ")
        topic, _, request_id = change.partition(" ")
        # A newer release may have topics that this one does not know.
        if sender != origin and topic in list(Topic):
            changes.wake(Topic(topic), request_id)

    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert isinstance(driver, asyncpg.Connection)  # noqa: S101
        await driver.add_listener(CHANNEL, on_notification)
        driver.add_termination_listener(lambda _: changes.to_tell.set())
        try:
            for topic in Topic:
                changes.wake(topic)  # something may have changed before the connection was made
            await _tell(driver, changes, origin)
        finally:
            await connection.invalidate()


async def _tell(driver: Any, changes: Changes, origin: str) -> None:
    """Notifies the other processes of changes until the connection is lost."""
    while True:
        # Not `wait_for`: in Python 3.11 it ignores a cancellation that comes with the event, and runs for ever.
        with suppress(TimeoutError):
            async with asyncio.timeout(CHECK_PERIOD):
                await changes.to_tell.wait()
        payloads = [f"{origin} {topic} {request_id}" for topic, request_id in changes.take_untold()]
        await driver.execute(_NOTIFY, CHANNEL, payloads)  # without payloads, a test of the connection
        await asyncio.sleep(PAUSE)
