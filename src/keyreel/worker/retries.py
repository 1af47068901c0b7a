"""The retry policy for the database and the object store, which may be unavailable for a while."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_exponential

from keyreel.store import STORE_ERRORS

T = TypeVar("T")

TRIES = 7
PAUSES = wait_exponential(multiplier=0.5, max=16)
"""Seconds between tries: 0.5, 1, 2, 4, 8, 16. Together they last about as long as a lease."""

_log = structlog.get_logger(__name__)


async def retry_on_store_error(action: Callable[[], Awaitable[T]]) -> T:
    """Repeats `action` while it raises STORE_ERRORS, so that a finished video is not lost. Raises the last error."""
    retrying = AsyncRetrying(
        retry=retry_if_exception_type(STORE_ERRORS),
        wait=PAUSES,
        stop=stop_after_attempt(TRIES),
        before_sleep=_log_failure,
        reraise=True,
    )
    async for attempt in retrying:
        with attempt:
            return await action()
    raise AssertionError("unreachable: the last error is raised")


def _log_failure(state: RetryCallState) -> None:
    _log.warning("store_failed", attempt=state.attempt_number, reason=str(state.outcome and state.outcome.exception()))
