import pytest
from tenacity import wait_none

from keyreel.worker import retries
from keyreel.worker.retries import retry_on_store_error


async def test_an_outcome_waits_for_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "PAUSES", wait_none())
    failures = [OSError("away"), OSError("away")]
    done: list[bool] = []

    async def finish() -> None:
        if failures:
            raise failures.pop()
        done.append(True)

    await retry_on_store_error(finish)
    assert done == [True]


async def test_an_outcome_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "PAUSES", wait_none())

    async def finish() -> None:
        raise OSError("away")

    with pytest.raises(OSError, match="away"):
        await retry_on_store_error(finish)
