"""Webhook URLs: encrypted in the database, on SQLite and PostgreSQL, and masked for operators."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, text, update
from sqlalchemy.exc import OperationalError

from keyreel.fal.outcomes import Success
from keyreel.server.webhook_urls import UnreadableUrlError, WebhookUrls
from keyreel.store.tables import request
from tests.server.live import ENDPOINT
from tests.server.storage_api import open_api

URL = "https://user:s3cret@example.com:8443/hook?token=s3cret&s3cret"
MASKED = "https://***@example.com:8443/hook?token=***&***"
URLS = WebhookUrls([bytes(32)])


@given(st.text())
def test_a_stored_url_is_read_as_it_was_sent(url: str) -> None:
    stored = URLS.seal(url)
    assert URLS.open(stored) == url
    assert len(url) < 4 or url not in stored


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        (URL, MASKED),
        ("http://example.com/a/b", "http://example.com/a/b"),
        ("http://token@[2001:db8::1]:80?a=b#c", "http://***@[2001:db8::1]:80?a=***"),
        ("http://example.com/?a=1&a==&&b=", "http://example.com/?a=***&a=***&***&b=***"),
    ],
)
def test_what_may_be_secret_is_masked(url: str, masked: str) -> None:
    assert URLS.masked(URLS.seal(url)) == URLS.masked(url) == masked


def test_a_url_of_another_secret_cannot_be_read() -> None:
    stored = WebhookUrls([b"1" * 32]).seal(URL)
    with pytest.raises(UnreadableUrlError):
        URLS.open(stored)
    assert "no longer has" in URLS.masked(stored)
    assert WebhookUrls([bytes(32), b"1" * 32]).open(stored) == URL


async def test_the_database_holds_no_password(new_url: str, tmp_path: Path) -> None:
    database = {"database_url": new_url, "secret": "a secret of the fleet"} if "postgres" in new_url else {}
    async with open_api(tmp_path, **database) as api:
        store = api.services.store
        admin = api.auth(await store.keys.create("admin", admin=True))
        submitted = await api.client.post(
            f"/queue/{ENDPOINT}", params={"fal_webhook": URL}, json={"prompt": "a fox"}, headers=api.auth()
        )
        async with store.database.read() as connection:
            row = (await connection.execute(select(request))).one()
        assert "s3cret" not in str(row)
        assert "example.com" not in str(row)

        lease = await store.queue.claim("worker")
        assert lease
        await store.queue.finish(lease, Success({}))
        (delivery,) = await store.deliveries.claim()
        assert (lease.id, api.services.webhook_urls.open(delivery.url)) == (submitted.json()["request_id"], URL)
        overview = await api.client.get("/api/operate", headers=admin)
        assert [call["url"] for call in overview.json()["webhooks"]] == [MASKED]

        # As an older release has stored it.
        async with store.database.write() as connection:
            await connection.execute(update(request).values(webhook_url=URL))
        overview = await api.client.get("/api/operate", headers=admin)
        assert [call["url"] for call in overview.json()["webhooks"]] == [MASKED]


async def test_a_failed_statement_is_reported_without_its_values(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api, api.services.store.database.read() as connection:
        with pytest.raises(OperationalError) as raised:
            await connection.execute(text("SELECT :url FROM nowhere"), {"url": URL})
        assert "nowhere" in str(raised.value)
        assert "s3cret" not in str(raised.value)
