"""Receivers of webhooks that send their answer byte by byte, or never end it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest
from sqlalchemy import select

from keyreel.server import webhooks
from keyreel.server.webhooks import Signer
from keyreel.store import Store
from keyreel.store.tables import delivery
from keyreel.worker.waiting import wait_for_any
from tests.server.test_webhooks import complete, delivering, recorded, session, signer, store
from tests.server.webhook_receiver import receiver

__all__ = ["session", "signer", "store"]


@asynccontextmanager
async def dripping(head: bytes, drop: bytes) -> AsyncIterator[str]:
    """Runs a receiver that answers with `head` and then with one `drop` after the other. Yields its URL."""

    stop, tasks = asyncio.Event(), set[asyncio.Task[None]]()

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(current_task())
        with suppress(ConnectionError):
            writer.write(head)
            while not stop.is_set():
                writer.write(drop)
                await writer.drain()
                await wait_for_any(stop, timeout=0.01)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
        stop.set()
        await asyncio.gather(*tasks)


def current_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None
    return task


@pytest.mark.slow
async def test_an_answer_that_drips_is_given_up_in_time(
    store: Store, session: aiohttp.ClientSession, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "FIRST_TIMEOUT", 0.3)
    async with dripping(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"a") as url, delivering(store, session, signer):
        await complete(store, url)
        row = await recorded(store)
    assert row["state"] == "PENDING"
    assert "did not answer in time" in row["error"]


async def test_a_head_without_end_is_given_up_before_it_fills_the_memory(
    store: Store, session: aiohttp.ClientSession, signer: Signer
) -> None:
    async with dripping(b"HTTP/1.1 200 OK\r\nX-Large: ", b"a" * 4096) as url, delivering(store, session, signer):
        await complete(store, url)
        row = await recorded(store)
    assert row["state"] == "PENDING"
    assert "does not speak HTTP" in row["error"]


async def test_the_body_is_not_waited_for(store: Store, session: aiohttp.ClientSession, signer: Signer) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"
    started = time.monotonic()
    async with dripping(head, b"a") as url, delivering(store, session, signer):
        await complete(store, url)
        row = await recorded(store)
    assert row["state"] == "DELIVERED"
    assert time.monotonic() - started < webhooks.FIRST_TIMEOUT


async def test_receivers_that_drip_do_not_delay_others(
    store: Store, session: aiohttp.ClientSession, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "GRACE", 0.0)
    async with dripping(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"a") as slow, receiver() as working:
        for _ in range(2 * webhooks.AT_ONCE_PER_RECEIVER):
            await complete(store, slow)
        expected = {await complete(store, working.url) for _ in range(10)}
        async with delivering(store, session, signer):
            received = {(await working.next()).headers["X-Fal-Webhook-Request-Id"] for _ in expected}
    assert received == expected
    async with store.database.read() as connection:
        states = (await connection.execute(select(delivery.c.state))).scalars().all()
    assert states.count("PENDING") >= 2 * webhooks.AT_ONCE_PER_RECEIVER, "they will be called again"
