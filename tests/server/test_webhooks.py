"""Webhooks from a real store to real HTTP receivers."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from aiohttp import web
from joserfc.jwk import OKPKey
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs
from tenacity import wait_none

from keyreel.fal.outcomes import Failure, JsonObject, Outcome, Success
from keyreel.files.secrets import load_secret
from keyreel.net.addresses import AddressPolicy, guarded_session
from keyreel.server import webhooks
from keyreel.server.webhook_urls import WebhookUrls
from keyreel.server.webhooks import Signer, deliver_forever, webhook_body
from keyreel.store import Store
from keyreel.store.database import Database
from keyreel.store.deliveries import Deliveries
from keyreel.store.records import Delivery, NewRequest
from keyreel.store.tables import delivery
from keyreel.worker import retries
from tests.server.webhook_receiver import Call, receiver, verify, verify_by_jwks
from tests.spans import recorder, span_id
from tests.store.conftest import Clock, empty_store
from tests.store.template import put_database

URLS = WebhookUrls([bytes(32)])
OUTPUT = {"prompt": "a cat \ud83d", "seed": 7, "video": {"url": "http://127.0.0.1/files/x/v.mp4"}}


class WatchedDeliveries(Deliveries):
    """The store's deliveries. They also queue each delivery whose attempt has been recorded."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.recorded: asyncio.Queue[Delivery] = asyncio.Queue()

    async def delivered(self, claimed: Delivery) -> None:
        await super().delivered(claimed)
        self.recorded.put_nowait(claimed)

    async def failed(self, claimed: Delivery, error: str, *, permanent: bool = False) -> None:
        await super().failed(claimed, error, permanent=permanent)
        self.recorded.put_nowait(claimed)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with empty_store(put_database(tmp_path)) as store:
        yield replace(store, deliveries=WatchedDeliveries(store.database))


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with guarded_session(AddressPolicy.everything(), timeout=30) as session:
        yield session


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer.from_secrets(load_secret(tmp_path / "webhook.key"))


@asynccontextmanager
async def delivering(store: Store, session: aiohttp.ClientSession, signer: Signer) -> AsyncIterator[None]:
    """Delivers webhooks during the block."""
    stop = asyncio.Event()
    task = asyncio.create_task(deliver_forever(store, session, signer, URLS, stop))
    try:
        yield
    finally:
        stop.set()
        await task


async def complete(store: Store, url: str, outcome: Outcome | None = None, traceparent: str | None = None) -> str:
    """Completes a request with a webhook. Returns its id."""
    endpoint = "fal-ai/ltx"
    new = NewRequest(endpoint=endpoint, key_id="key-1", input={}, seed=7, webhook_url=url, traceparent=traceparent)
    await store.queue.submit(new)
    lease = await store.queue.claim("worker")
    assert lease is not None
    await store.queue.finish(lease, outcome or Success(OUTPUT))
    return lease.id


async def recorded(store: Store) -> JsonObject:
    """Waits until an attempt is recorded. Returns the row of the store's only delivery."""
    assert isinstance(store.deliveries, WatchedDeliveries)
    async with asyncio.timeout(5):
        await store.deliveries.recorded.get()
    return await delivery_row(store)


async def delivery_row(store: Store) -> JsonObject:
    async with store.database.read() as connection:
        return dict((await connection.execute(delivery.select())).mappings().one())


async def test_a_success_is_posted_in_fals_form(store: Store, session: aiohttp.ClientSession, signer: Signer) -> None:
    async with receiver() as server, delivering(store, session, signer):
        request_id = await complete(store, server.url)
        call = await server.next()
        row = await recorded(store)
        assert row["state"] == "DELIVERED"
    assert json.loads(call.body) == {
        "request_id": request_id,
        "gateway_request_id": request_id,
        "status": "OK",
        "payload": OUTPUT,
    }
    assert call.headers["Content-Type"] == "application/json"
    assert call.headers["X-Fal-Webhook-Request-Id"] == request_id
    assert call.headers["X-Fal-Webhook-User-Id"] == "key-1"
    assert len(call.headers["X-Fal-Webhook-Signature"]) == 128
    assert verify_by_jwks(call, signer.jwks())


@pytest.mark.parametrize(
    ("failure", "error", "payload"),
    [
        (
            Failure("prompt: Field required", "missing", [{"loc": ["body", "prompt"], "msg": "Field required"}]),
            "Invalid status code: 422",
            {"detail": [{"loc": ["body", "prompt"], "msg": "Field required"}]},
        ),
        (
            Failure("The request was cancelled.", "client_cancelled"),
            "Invalid status code: 499",
            {"detail": "The request was cancelled.", "error_type": "client_cancelled"},
        ),
    ],
)
def test_a_failure_is_posted_in_fals_form(failure: Failure, error: str, payload: JsonObject) -> None:
    body = json.loads(webhook_body(Delivery(1, 1, "http://example.com", "id", "key-1", failure)))
    assert body == {
        "request_id": "id",
        "gateway_request_id": "id",
        "status": "ERROR",
        "error": error,
        "payload": payload,
    }


def test_the_public_key_is_published_without_and_with_padding(signer: Signer) -> None:
    unpadded, padded = signer.jwks()["keys"]
    assert (len(unpadded["x"]), len(padded["x"])) == (43, 44)
    assert padded["x"] == unpadded["x"] + "="
    body = b"{}"
    call = Call(signer.sign("request", "user", body), body)
    assert not verify(call, unpadded["x"])  # fal's Python sample cannot read this key and tries the next one
    assert verify(call, padded["x"])
    standard = OKPKey.import_key(unpadded)
    assert standard.as_dict(private=False)["x"] == unpadded["x"]


def test_a_changed_call_is_not_verified(signer: Signer) -> None:
    call = Call(signer.sign("request", "user", b"body"), b"body")
    x = signer.jwks()["keys"][1]["x"]
    assert verify(call, x)
    assert not verify(Call(call.headers, b"other"), x)
    for header in call.headers:
        changed = {**call.headers, header: call.headers[header][:-1] + "0", "X-Other": "1"}
        if changed[header] != call.headers[header]:
            assert not verify(Call(changed, call.body), x)


def test_the_key_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "key"
    first, second = (Signer.from_secrets(load_secret(path)) for _ in range(2))
    assert first.jwks() == second.jwks()
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_call_by_another_secret_is_verified_by_the_published_keys(
    store: Store, session: aiohttp.ClientSession
) -> None:
    """While the secret is being replaced, a receiver may ask a process that signs with another one."""
    old, new = b"o" * 32, b"n" * 32
    async with receiver() as server, delivering(store, session, Signer.from_secrets(new, old)):
        await complete(store, server.url)
        call = await server.next()
        await recorded(store)
    assert verify_by_jwks(call, Signer.from_secrets(old, new).jwks())
    assert not verify_by_jwks(call, Signer.from_secrets(old).jwks())


async def test_an_encrypted_url_is_called(store: Store, session: aiohttp.ClientSession, signer: Signer) -> None:
    async with receiver() as server, delivering(store, session, signer):
        await complete(store, URLS.seal(server.url))
        await server.next()
        assert (await recorded(store))["state"] == "DELIVERED"


async def test_a_url_that_cannot_be_decrypted_is_tried_again(
    store: Store, session: aiohttp.ClientSession, signer: Signer
) -> None:
    async with delivering(store, session, signer):
        await complete(store, WebhookUrls([b"1" * 32]).seal("http://127.0.0.1:9/hook"))
        row = await recorded(store)
    assert (row["state"], row["error"]) == (
        "PENDING",
        "The URL was encrypted with a secret that this server no longer has.",
    )


@pytest.mark.slow
async def test_a_failed_call_is_repeated_with_a_new_signature(
    store: Store, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    hours = iter(range(100))
    signer = Signer(Signer.from_secrets(load_secret(tmp_path / "key")).key, clock=lambda: 3600 * next(hours))
    async with receiver(500, 404, 200) as server, delivering(store, session, signer):
        await complete(store, server.url)
        first = await server.next()
        row = await recorded(store)
        assert row["state"] == "PENDING"
        assert "status 500" in row["error"]
        await Clock(store.database).advance(8)
        second = await server.next()
        row = await recorded(store)
        assert row["state"] == "PENDING"
        assert "status 404" in row["error"]
        await Clock(store.database).advance(15)
        third = await server.next()
        row = await recorded(store)
        assert row["state"] == "DELIVERED"
    assert first.body == second.body == third.body
    assert [call.headers["X-Fal-Webhook-Timestamp"] for call in (first, second, third)] == ["0", "3600", "7200"]
    assert len({call.headers["X-Fal-Webhook-Signature"] for call in (first, second, third)}) == 3


@pytest.mark.parametrize("status", [200, 201, 204, 299])
async def test_any_2xx_status_completes_a_delivery(
    store: Store, session: aiohttp.ClientSession, signer: Signer, status: int
) -> None:
    async with receiver(status) as server, delivering(store, session, signer):
        await complete(store, server.url)
        row = await recorded(store)
        assert row["state"] == "DELIVERED"


async def test_redirects_are_not_followed(store: Store, session: aiohttp.ClientSession, signer: Signer) -> None:
    async with receiver() as other, receiver(302, Location=other.url) as server, delivering(store, session, signer):
        await complete(store, server.url)
        row = await recorded(store)
        assert row["state"] == "FAILED"
        assert "The receiver answered with status 302." in row["error"]
    assert other.calls.empty()


async def test_private_receivers_are_refused(store: Store, signer: Signer) -> None:
    async with receiver() as server, guarded_session(AddressPolicy(), timeout=30) as session:
        async with delivering(store, session, signer):
            await complete(store, server.url)
            row = await recorded(store)
            assert row["state"] == "FAILED"
            assert "not public" in row["error"]
        assert server.calls.empty()


@pytest.mark.parametrize("url", ["nonsense", "ftp://example.com/", "http://[::1", "http:///path", "http://\udcff/"])
async def test_an_invalid_url_fails_at_once(
    store: Store, session: aiohttp.ClientSession, signer: Signer, url: str
) -> None:
    async with delivering(store, session, signer):
        await complete(store, url)
        row = await recorded(store)
        assert row["state"] == "FAILED"
        assert "The URL is not valid." in row["error"]


@pytest.mark.slow
async def test_a_refused_connection_is_retried(store: Store, session: aiohttp.ClientSession, signer: Signer) -> None:
    async with receiver() as server:
        url = server.url
    async with delivering(store, session, signer):
        await complete(store, url)
        row = await recorded(store)
        assert row["state"] == "PENDING"
        assert "Could not connect to" in row["error"]


async def test_a_call_without_an_answer_is_retried(
    store: Store, session: aiohttp.ClientSession, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "FIRST_TIMEOUT", 0.1)
    never = asyncio.Event()

    async def silent(_request: web.Request) -> web.StreamResponse:
        await never.wait()
        return web.Response()

    async with receiver(answer=silent) as server, delivering(store, session, signer):
        await complete(store, server.url)
        row = await recorded(store)
        assert row["state"] == "PENDING"
        assert "The receiver did not answer in time." in row["error"]
        never.set()


@pytest.mark.slow
async def test_a_receiver_without_answers_does_not_delay_others(
    store: Store, session: aiohttp.ClientSession, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "GRACE", 0.0)
    never = asyncio.Event()

    async def silent(_request: web.Request) -> web.StreamResponse:
        await never.wait()
        return web.Response()

    async with receiver(answer=silent) as hanging, receiver() as working:
        for _ in range(40):
            await complete(store, hanging.url)
        expected = {await complete(store, working.url) for _ in range(20)}
        async with delivering(store, session, signer):
            received = {(await working.next()).headers["X-Fal-Webhook-Request-Id"] for _ in expected}
        never.set()
    assert received == expected
    assert hanging.calls.qsize() == webhooks.AT_ONCE_PER_RECEIVER


async def test_calls_that_a_stop_interrupted_are_repeated(
    store: Store, session: aiohttp.ClientSession, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "GRACE", 0.0)
    answered = asyncio.Event()

    async def slow(_request: web.Request) -> web.StreamResponse:
        await answered.wait()
        return web.Response()

    async with receiver(answer=slow) as server:
        async with delivering(store, session, signer):
            await complete(store, server.url)
            first = await server.next()
        assert (await delivery_row(store))["state"] == "PENDING"
        answered.set()
        await Clock(store.database).advance(151)
        async with delivering(store, session, signer):
            assert (await server.next()).body == first.body
            row = await recorded(store)
            assert row["state"] == "DELIVERED"


class FailingDeliveries(WatchedDeliveries):
    """Deliveries whose first claim fails."""

    failures = 1

    async def claim(self, limit: int = 10) -> list[Delivery]:
        if self.failures:
            self.failures -= 1
            raise OperationalError("SELECT", None, Exception("disk I/O error"))
        return await super().claim(limit)


@pytest.fixture
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    """The entries of the log, which the package's other tests silence."""
    quiet = structlog.get_config()
    structlog.reset_defaults()
    with capture_logs() as entries:
        yield entries
    structlog.configure(**quiet)


@pytest.mark.slow
async def test_deliveries_continue_after_an_error_of_the_database(
    store: Store, session: aiohttp.ClientSession, signer: Signer, logs: list[MutableMapping[str, Any]]
) -> None:
    store = replace(store, deliveries=FailingDeliveries(store.database))
    async with receiver() as server, delivering(store, session, signer):
        await complete(store, server.url)
        await server.next()
        assert (await recorded(store))["state"] == "DELIVERED"
    assert logs[0]["event"] == "webhooks cannot be read"


class ForgetfulDeliveries(WatchedDeliveries):
    """The database goes away while a receiver is called."""

    failures = 2

    async def delivered(self, claimed: Delivery) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError("away")
        await super().delivered(claimed)


async def test_a_call_is_recorded_when_the_database_is_back(
    store: Store, session: aiohttp.ClientSession, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would be repeated although it was received."""
    monkeypatch.setattr(retries, "PAUSES", wait_none())
    store = replace(store, deliveries=ForgetfulDeliveries(store.database))
    async with receiver() as server, delivering(store, session, signer):
        await complete(store, server.url)
        await server.next()
        assert (await recorded(store))["state"] == "DELIVERED"


@pytest.mark.slow
async def test_each_of_many_deliveries_is_made_once(
    store: Store, session: aiohttp.ClientSession, signer: Signer
) -> None:
    async with receiver() as server, delivering(store, session, signer):
        expected = {await complete(store, server.url) for _ in range(60)}
        received = [(await server.next()).headers["X-Fal-Webhook-Request-Id"] for _ in expected]
    assert set(received) == expected
    assert server.calls.empty()


async def test_a_call_is_part_of_the_requests_trace(
    store: Store, session: aiohttp.ClientSession, signer: Signer
) -> None:
    recorder().clear()
    trace = "0af7651916cd43dd8448eb211c80319c"
    async with receiver(503) as server, delivering(store, session, signer):
        await complete(store, server.url, traceparent=f"00-{trace}-b7ad6b7169203331-01")
        call = await server.next()
        await recorded(store)
    (span,) = recorder().get_finished_spans()
    assert call.headers["traceparent"] == f"00-{trace}-{span_id(span):016x}-01"
    assert (span.name, span.status.description) == ("webhook", "DeliveryError")
