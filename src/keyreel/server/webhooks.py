"""Webhooks: signs completed requests and posts them in fal's format."""

import asyncio
import hashlib
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from weakref import WeakValueDictionary

import aiohttp
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from opentelemetry.trace import SpanKind
from yarl import URL

from keyreel import traces
from keyreel.fal.outcomes import Failure, JsonObject, Success, status_and_body
from keyreel.net.addresses import RefusedAddressError
from keyreel.server.webhook_urls import UnreadableUrlError, WebhookUrls
from keyreel.store import STORE_ERRORS, Store, Topic
from keyreel.store.errors import described
from keyreel.store.records import Delivery
from keyreel.worker.retries import retry_on_store_error
from keyreel.worker.waiting import wait_for_any

FIRST_TIMEOUT = 15.0
"""Seconds that the first call may take."""
RETRY_TIMEOUT = 120.0
"""Seconds that each retry may take; less than the store's lease on a delivery."""
AT_ONCE = 500
"""Most deliveries in progress, including those that wait for a slot."""
BATCH = 50
"""Deliveries to claim at a time."""
AT_ONCE_PER_RECEIVER = 8
AT_ONCE_PER_KEY = 250
SLOT_TIMEOUT = 5.0
"""Seconds that a delivery waits for a slot. A receiver that works finishes `AT_ONCE` deliveries in less."""
POLL = 1.0
"""Seconds between two looks for deliveries when no change is announced: a retry may be due."""
POLL_PAUSE = 0.25
"""Minimum seconds between two looks for deliveries."""
GRACE = 5.0
"""Seconds that running calls get at shutdown."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs as fal does: Ed25519 over request id, user id, timestamp and the SHA-256 of the body.

    accepted: keys with which other processes of the fleet sign while its secret is being replaced.
    """

    key: Ed25519PrivateKey
    clock: Callable[[], float] = time.time
    accepted: tuple[Ed25519PrivateKey, ...] = ()

    @classmethod
    def from_secrets(cls, secret: bytes, *accepted: bytes) -> "Signer":
        """secret: 32 bytes, the private key."""
        key, *others = map(Ed25519PrivateKey.from_private_bytes, (secret, *accepted))
        return cls(key, accepted=tuple(others))

    def sign(self, request_id: str, user_id: str, body: bytes) -> dict[str, str]:
        """Returns the signature headers. Receivers accept them for five minutes: sign each attempt anew."""
        timestamp = str(int(self.clock()))
        message = "\n".join((request_id, user_id, timestamp, hashlib.sha256(body).hexdigest()))
        return {
            "X-Fal-Webhook-Request-Id": request_id,
            "X-Fal-Webhook-User-Id": user_id,
            "X-Fal-Webhook-Timestamp": timestamp,
            "X-Fal-Webhook-Signature": self.key.sign(message.encode()).hex(),
        }

    def jwks(self) -> JsonObject:
        """Returns each public key twice: without padding, as in the standard, and padded, as fal's Python sample needs.

        Receivers try all keys and skip those that they cannot read.
        """
        keys = (key.public_key().public_bytes_raw() for key in (self.key, *self.accepted))
        forms = (form for padded in map(urlsafe_b64encode, keys) for form in (padded.rstrip(b"="), padded))
        return {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": form.decode()} for form in forms]}


async def deliver_forever(
    store: Store, session: aiohttp.ClientSession, signer: Signer, urls: WebhookUrls, stop: asyncio.Event
) -> None:
    """Delivers the webhooks in `store` until `stop` is set. Calls that do not end soon after that are repeated later.

    `session` must be guarded (see guarded_session), because requests choose the URLs.
    """
    deliverer = _Deliverer(store, session, signer, urls)
    tasks: set[asyncio.Task[None]] = set()
    try:
        while not stop.is_set():
            completed = store.database.changes.of(Topic.STATE)
            claimed = await deliverer.claim(min(BATCH, AT_ONCE - len(tasks)))
            for delivery in claimed:
                task = asyncio.create_task(deliverer.deliver(delivery))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            if len(claimed) < BATCH:
                await wait_for_any(stop, timeout=POLL_PAUSE)
                await wait_for_any(stop, completed, timeout=POLL - POLL_PAUSE)
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def webhook_body(delivery: Delivery) -> bytes:
    """Returns the body, in ASCII: a prompt may contain half of a surrogate pair, which UTF-8 cannot encode."""
    body: JsonObject = {"request_id": delivery.request_id, "gateway_request_id": delivery.request_id}
    match delivery.outcome:
        case Success(output):
            body |= {"status": "OK", "payload": output}
        case Failure() as failure:
            code, payload = status_and_body(failure)
            body |= {"status": "ERROR", "error": f"Invalid status code: {code}", "payload": payload}
    return json.dumps(body, separators=(",", ":")).encode("ascii")


class DeliveryError(Exception):
    """A delivery failed. `permanent`: another attempt would fail, too."""

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


class _Deliverer:
    """Claims deliveries, calls their receivers and records the results."""

    def __init__(self, store: Store, session: aiohttp.ClientSession, signer: Signer, urls: WebhookUrls) -> None:
        self._deliveries = store.deliveries
        self._session = session
        self._signer = signer
        self._urls = urls
        self._slots: WeakValueDictionary[tuple[str, ...], asyncio.Semaphore] = WeakValueDictionary()

    async def claim(self, limit: int) -> list[Delivery]:
        """Returns up to `limit` deliveries that are due; none when the database fails."""
        try:
            # Read first: claiming writes, SQLite has one writer, and usually nothing is due.
            return await self._deliveries.claim(limit) if limit and await self._deliveries.has_due() else []
        except STORE_ERRORS as failure:
            _log.error("webhooks cannot be read", **described(failure))
            return []

    async def deliver(self, delivery: Delivery) -> None:
        """Makes one attempt and records how it ended."""
        log = _log.bind(request_id=delivery.request_id, attempt=delivery.attempt)
        error = await self._attempt(delivery)
        try:
            await retry_on_store_error(lambda: self._record(delivery, error))
            if error is None:
                log.info("webhook delivered")
            else:
                log.warning("webhook failed", error=str(error), permanent=error.permanent)
        except STORE_ERRORS as failure:
            message = "webhook called, but the result cannot be recorded: it will be called again"
            log.error(message, **described(failure))

    async def _record(self, delivery: Delivery, error: DeliveryError | None) -> None:
        if error is None:
            await self._deliveries.delivered(delivery)
        else:
            await self._deliveries.failed(delivery, str(error), permanent=error.permanent)

    async def _attempt(self, delivery: Delivery) -> DeliveryError | None:
        try:
            key, url = delivery.key_id, self._urls.open(delivery.url)
            receiver = self._limited_slot(AT_ONCE_PER_RECEIVER, key, str(URL(url).origin()))
            async with receiver, self._limited_slot(AT_ONCE_PER_KEY, key):
                with _span(delivery):
                    await self._post(delivery, url)
        except DeliveryError as error:
            return error
        except UnreadableUrlError as error:
            return DeliveryError(str(error))
        except (ValueError, aiohttp.NonHttpUrlClientError):  # aiohttp.InvalidURL is a ValueError
            return DeliveryError("The URL is not valid.", permanent=True)
        except (aiohttp.ClientError, TimeoutError) as error:
            return _delivery_error(error)
        return None

    @asynccontextmanager
    async def _limited_slot(self, limit: int, *group: str) -> AsyncIterator[None]:
        """Holds one of the `limit` slots of `group`: one receiver or one key must not use up all deliveries."""
        slots = self._slots.setdefault(group, asyncio.Semaphore(limit))
        try:
            async with asyncio.timeout(SLOT_TIMEOUT):
                await slots.acquire()
        except TimeoutError:
            raise DeliveryError("Earlier calls are still waiting for an answer.") from None
        try:
            yield
        finally:
            slots.release()

    async def _post(self, delivery: Delivery, url: str) -> None:
        body = webhook_body(delivery)
        headers = self._signer.sign(delivery.request_id, delivery.key_id, body)
        timeout = FIRST_TIMEOUT if delivery.attempt == 1 else RETRY_TIMEOUT
        call = self._session.post(
            url,
            data=body,
            headers={"Content-Type": "application/json", **headers, **traces.headers()},
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=timeout),
        )
        async with call as response:
            if not 200 <= response.status < 300:
                redirects = 300 <= response.status < 400
                raise DeliveryError(f"The receiver answered with status {response.status}.", permanent=redirects)


def _span(delivery: Delivery) -> AbstractContextManager[object]:
    facts: dict[str, str | int] = {"request_id": delivery.request_id, "attempt": delivery.attempt}
    return traces.span("webhook", delivery.traceparent, SpanKind.CLIENT, **facts)


def _delivery_error(error: Exception) -> DeliveryError:
    """Describes the error without the URL, whose query may contain a secret."""
    match error:
        case aiohttp.ClientConnectorError(os_error=RefusedAddressError() as refused):
            return DeliveryError(f"The receiver was not called: {refused}.", permanent=True)
        case aiohttp.ClientConnectorError():
            return DeliveryError("Could not connect to the receiver.")
        case TimeoutError():
            return DeliveryError("The receiver did not answer in time.")
        case _:
            return DeliveryError("The connection broke, or the receiver does not speak HTTP.")
