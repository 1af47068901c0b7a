"""Webhooks: how completed requests are signed and posted, in fal's format."""

import asyncio
import hashlib
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

import aiohttp
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.exc import SQLAlchemyError
from yarl import URL

from keyreel.addresses import RefusedAddressError
from keyreel.failures import failure_answer
from keyreel.links import load_secret
from keyreel.store import Store
from keyreel.store.records import Delivery, Failure, JsonObject, Success

FIRST_TIMEOUT = 15.0
"""Seconds for the first call, body and answer."""
RETRY_TIMEOUT = 120.0
"""Seconds for the others; less than the store's lease on a delivery."""
AT_ONCE = 500
"""Deliveries under way, those that wait for their receiver included."""
BATCH = 50
"""How many are claimed at a time."""
AT_ONCE_PER_RECEIVER = 8
AT_ONCE_PER_KEY = 250
PATIENCE = 5.0
"""Seconds that a delivery waits for earlier ones to the same receiver. A live one clears `AT_ONCE` of them in less."""
POLL = 0.25
GRACE = 5.0
"""Seconds that calls under way get at the end."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs as fal does: Ed25519 over request id, user id, time and the SHA-256 of the body."""

    key: Ed25519PrivateKey
    clock: Callable[[], float] = time.time

    @classmethod
    def load(cls, path: Path) -> "Signer":
        """The key in `path`, which is drawn when there is no such file."""
        return cls(Ed25519PrivateKey.from_private_bytes(load_secret(path)))

    def sign(self, request_id: str, user_id: str, body: bytes) -> dict[str, str]:
        """The headers. Receivers take them for five minutes: sign each attempt anew."""
        timestamp = str(int(self.clock()))
        message = "\n".join((request_id, user_id, timestamp, hashlib.sha256(body).hexdigest()))
        return {
            "X-Fal-Webhook-Request-Id": request_id,
            "X-Fal-Webhook-User-Id": user_id,
            "X-Fal-Webhook-Timestamp": timestamp,
            "X-Fal-Webhook-Signature": self.key.sign(message.encode()).hex(),
        }

    def jwks(self) -> JsonObject:
        """The public key, twice: the standard form without padding, and the one that fal's Python sample can decode.

        Receivers try all keys and skip those that they cannot read.
        """
        padded = urlsafe_b64encode(self.key.public_key().public_bytes_raw()).decode()
        return {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x} for x in (padded.rstrip("="), padded)]}


async def deliver_forever(store: Store, session: aiohttp.ClientSession, signer: Signer, stop: asyncio.Event) -> None:
    """Makes the deliveries of `store` until `stop` is set. Calls that do not end soon after it are made again later.

    `session`: a guarded one, because requests name the receivers.
    """
    courier = _Courier(store, session, signer)
    tasks: set[asyncio.Task[None]] = set()
    try:
        while not stop.is_set():
            claimed = await courier.claim(min(BATCH, AT_ONCE - len(tasks)))
            for delivery in claimed:
                task = asyncio.create_task(courier.deliver(delivery))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            if len(claimed) < BATCH:
                await _wait(stop, POLL)
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def webhook_body(delivery: Delivery) -> bytes:
    """What fal posts. ASCII: a prompt may hold half of a surrogate pair, which UTF-8 does not have."""
    body: JsonObject = {"request_id": delivery.request_id, "gateway_request_id": delivery.request_id}
    match delivery.outcome:
        case Success(output):
            body |= {"status": "OK", "payload": output}
        case Failure() as failure:
            code, payload = failure_answer(failure)
            body |= {"status": "ERROR", "error": f"Invalid status code: {code}", "payload": payload}
    return json.dumps(body, separators=(",", ":")).encode("ascii")


class DeliveryError(Exception):
    """The receiver did not get it; `permanent`: and never will."""

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


class _Courier:
    def __init__(self, store: Store, session: aiohttp.ClientSession, signer: Signer) -> None:
        self._deliveries = store.deliveries
        self._session = session
        self._signer = signer
        self._lanes: WeakValueDictionary[tuple[str, ...], asyncio.Semaphore] = WeakValueDictionary()

    async def claim(self, limit: int) -> list[Delivery]:
        try:
            # First a read: claiming writes, SQLite has one writer, and mostly there is nothing to do.
            return await self._deliveries.claim(limit) if limit and await self._deliveries.pending() else []
        except SQLAlchemyError:
            _log.exception("webhooks cannot be read")
            return []

    async def deliver(self, delivery: Delivery) -> None:
        log = _log.bind(request_id=delivery.request_id, attempt=delivery.attempt)
        error = await self._attempt(delivery)
        try:
            if error is None:
                await self._deliveries.delivered(delivery)
                log.info("webhook delivered")
            else:
                await self._deliveries.failed(delivery, str(error), permanent=error.permanent)
                log.warning("webhook failed", error=str(error), permanent=error.permanent)
        except SQLAlchemyError:
            log.exception("webhook called, but that cannot be recorded: it will be called again")

    async def _attempt(self, delivery: Delivery) -> DeliveryError | None:
        try:
            key = delivery.key_id
            receiver = self._lane(AT_ONCE_PER_RECEIVER, key, str(URL(delivery.url).origin()))
            async with receiver, self._lane(AT_ONCE_PER_KEY, key):
                await self._post(delivery)
        except DeliveryError as error:
            return error
        except (ValueError, aiohttp.NonHttpUrlClientError):  # aiohttp.InvalidURL is a ValueError
            return DeliveryError("The URL is not valid.", permanent=True)
        except (aiohttp.ClientError, TimeoutError) as error:
            return _explained(error)
        return None

    @asynccontextmanager
    async def _lane(self, places: int, *name: str) -> AsyncIterator[None]:
        """A place among so many. Calls to dead receivers, and to one key's, must not take them all."""
        lane = self._lanes.setdefault(name, asyncio.Semaphore(places))
        try:
            async with asyncio.timeout(PATIENCE):
                await lane.acquire()
        except TimeoutError:
            raise DeliveryError("Earlier calls still wait for an answer.") from None
        try:
            yield
        finally:
            lane.release()

    async def _post(self, delivery: Delivery) -> None:
        body = webhook_body(delivery)
        headers = self._signer.sign(delivery.request_id, delivery.key_id, body)
        timeout = FIRST_TIMEOUT if delivery.attempt == 1 else RETRY_TIMEOUT
        call = self._session.post(
            delivery.url,
            data=body,
            headers={"Content-Type": "application/json", **headers},
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=timeout),
        )
        async with call as response:
            if not 200 <= response.status < 300:
                redirects = 300 <= response.status < 400
                raise DeliveryError(f"The receiver answered with status {response.status}.", permanent=redirects)


def _explained(error: Exception) -> DeliveryError:
    """Without the URL, whose query may hold a secret."""
    match error:
        case aiohttp.ClientConnectorError(os_error=RefusedAddressError() as refused):
            return DeliveryError(f"The receiver is not called: {refused}.", permanent=True)
        case aiohttp.ClientConnectorError():
            return DeliveryError("The receiver cannot be connected to.")
        case TimeoutError():
            return DeliveryError("The receiver did not answer in time.")
        case _:
            return DeliveryError("The connection broke off, or the receiver does not speak HTTP.")


async def _wait(event: asyncio.Event, timeout: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), timeout)
