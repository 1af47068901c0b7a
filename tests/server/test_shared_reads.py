import asyncio
from collections.abc import Collection
from typing import Any, cast

import pytest

from keyreel.server import shared_reads
from keyreel.server.shared_reads import SharedReads
from keyreel.store.requests import Requests


class GatedRequests:
    """Rows in which each request is its own status. A read waits for the test, and fails when the test says so."""

    def __init__(self) -> None:
        self.reads: list[set[str]] = []
        self.began = asyncio.Event()
        self.gate = asyncio.Semaphore(0)
        self.error: Exception | None = None

    async def statuses(self, ids: Collection[str]) -> dict[str, str]:
        self.reads.append(set(ids))
        self.began.set()
        await self.gate.acquire()
        if self.error:
            raise self.error
        return {request_id: request_id for request_id in ids if request_id != "nobody"}


@pytest.fixture
def rows() -> GatedRequests:
    return GatedRequests()


@pytest.fixture
def reads(rows: GatedRequests, monkeypatch: pytest.MonkeyPatch) -> SharedReads:
    monkeypatch.setattr(shared_reads, "PAUSE", 0.0)
    return SharedReads(cast("Requests", rows))


async def ask(reads: SharedReads, *ids: str) -> asyncio.Future[list[Any]]:
    asked = asyncio.gather(*(reads.status(request_id) for request_id in ids))
    await asyncio.sleep(0)
    return asked


async def test_who_asks_during_a_read_gets_the_next_one(rows: GatedRequests, reads: SharedReads) -> None:
    first = await ask(reads, "a", "b", "a", "nobody")
    await rows.began.wait()
    second = await ask(reads, "a", "c")
    third = await ask(reads, "d")
    rows.gate.release()
    assert await first == ["a", "b", "a", None]
    assert not second.done()
    rows.gate.release()
    assert (await second, await third) == (["a", "c"], ["d"])
    assert rows.reads == [{"a", "b", "nobody"}, {"a", "c", "d"}]


async def test_a_failed_read_fails_for_all_and_the_next_one_is_made(rows: GatedRequests, reads: SharedReads) -> None:
    rows.error = OSError("away")
    rows.gate.release()
    asked = [await ask(reads, "a") for _ in range(2)]
    for each in asked:
        with pytest.raises(OSError, match="away"):
            await each
    rows.error = None
    rows.gate.release()
    assert await (await ask(reads, "a")) == ["a"]


async def test_a_client_that_leaves_does_not_stop_the_read_of_others(rows: GatedRequests, reads: SharedReads) -> None:
    leaving, staying = await ask(reads, "a"), await ask(reads, "a")
    await rows.began.wait()
    leaving.cancel()
    rows.gate.release()
    assert await staying == ["a"]


async def test_reads_are_apart(rows: GatedRequests, reads: SharedReads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_reads, "PAUSE", 3600.0)
    for _ in range(2):
        rows.gate.release()
    await reads.status("a")
    later = await ask(reads, "a")
    await asyncio.sleep(0)
    assert len(rows.reads) == 1
    later.cancel()
