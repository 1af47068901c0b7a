"""The audit log over HTTP: calls are recorded with their caller and address, and administrators read them."""

import csv
from datetime import UTC, date, datetime
from typing import Any

import httpx
import pytest

from tests.server.live import LiveServer
from tests.server.queue_api import finish, hold, submit
from tests.server.storage_api import Api

PAGE = {"Authorization": "", "X-Keyreel-Page": "1"}
FORWARDED = {"X-Forwarded-For": "203.0.113.7"}
"""The server trusts a proxy on its own machine."""


def newest(server: LiveServer, **params: Any) -> dict[str, Any]:
    (entry,) = audit(server, limit=1, **params)
    return entry


def audit(server: LiveServer, **params: Any) -> list[dict[str, Any]]:
    answer = httpx.get(
        f"{server.url}/api/operate/audit", params=params, headers=server.admin_headers, trust_env=False
    ).raise_for_status()
    return list(answer.json())


def done(entry: dict[str, Any]) -> tuple[str | None, ...]:
    return entry["action"], entry["key_id"], entry["address"], entry["target"]


def test_changes_of_keys_are_recorded_with_who_made_them(server: LiveServer) -> None:
    admin = server.admin.key.id
    with httpx.Client(base_url=server.url, headers=server.admin_headers | FORWARDED, trust_env=False) as http:
        made = http.post("/keys", json={"name": "studio", "max_queued": 5}).json()
        assert done(newest(server)) == ("key_created", admin, "203.0.113.7", made["id"])
        assert made["secret"] not in str(audit(server))
        http.put(f"/keys/{made['id']}/limits", json={"max_running": 2})
        assert done(newest(server)) == ("limits_replaced", admin, "203.0.113.7", made["id"])
        http.delete(f"/keys/{made['id']}")
        assert done(newest(server)) == ("key_revoked", admin, "203.0.113.7", made["id"])
    assert newest(server)["name"] == "admin"


def test_sessions_are_recorded(http: httpx.Client, server: LiveServer) -> None:
    user = server.user.key.id
    http.post("/api/session", headers=FORWARDED)
    assert done(newest(server)) == ("signed_in", user, "203.0.113.7", None)
    http.delete("/api/session", headers=PAGE | FORWARDED)
    assert done(newest(server)) == ("signed_out", user, "203.0.113.7", None)


def test_a_refused_sign_in_is_recorded_without_the_secret(server: LiveServer) -> None:
    wrong = {"Authorization": f"Key {server.user.key.id}:guess", "X-Forwarded-For": "203.0.113.99"}
    for _ in range(3):
        assert httpx.post(f"{server.url}/api/session", headers=wrong, trust_env=False).status_code == 401
    assert done(newest(server)) == ("key_refused", None, "203.0.113.99", server.user.key.id)
    server.call(server.services.refusals.flush())
    assert newest(server)["detail"] == {"times": 2}
    assert "guess" not in str(audit(server))


def test_cancels_and_deletions_are_recorded(http: httpx.Client, server: LiveServer) -> None:
    running, user = hold(http), server.user.key.id
    http.put(running["cancel_url"], headers=server.admin_headers)
    assert done(newest(server)) == ("request_cancelled", server.admin.key.id, "127.0.0.1", running["request_id"])
    made = submit(http, "a fox")
    finish(http, made)
    http.delete(f"/api/requests/{made['request_id']}")
    assert done(newest(server)) == ("request_deleted", user, "127.0.0.1", made["request_id"])


def test_the_log_is_for_administrators(http: httpx.Client) -> None:
    assert http.get("/api/operate/audit").status_code == 403
    assert http.get("/api/operate/audit.csv").status_code == 403


def test_the_log_is_read_in_pages_and_by_day(http: httpx.Client, server: LiveServer) -> None:
    for _ in range(3):
        http.post("/api/session")
    first = audit(server, limit=2)
    second = audit(server, limit=1, before=first[-1]["seq"])
    numbers = [entry["seq"] for entry in first + second]
    assert numbers == sorted(numbers, reverse=True)
    assert len(set(numbers)) == 3
    today = datetime.now(UTC).date()
    assert newest(server, since=str(today), until=str(today))["seq"] == numbers[0]
    assert audit(server, until="2020-01-01") == []


def test_the_log_can_be_had_as_csv(server: LiveServer) -> None:
    with httpx.Client(base_url=server.url, headers=server.admin_headers, trust_env=False) as http:
        made = http.post("/keys", json={"name": "=1+1"}).json()
        answer = http.get("/api/operate/audit.csv")
    assert answer.headers["content-type"].startswith("text/csv")
    row = next(row for row in csv.DictReader(answer.text.splitlines()) if row["target"] == made["id"])
    assert (row["action"], row["key_id"], row["name"]) == ("key_created", server.admin.key.id, "admin")
    assert datetime.fromisoformat(row["time"]).date() == datetime.now(UTC).date()


@pytest.mark.parametrize("path", ["/api/operate/audit", "/api/operate/audit.csv", "/keys/usage"])
@pytest.mark.parametrize("day", [date.min, date.max])
async def test_the_ends_of_the_calendar_are_days_like_others(api: Api, path: str, day: date) -> None:
    admin = api.auth(await api.services.store.keys.create("admin", admin=True))
    for name in ("since", "until"):
        assert (await api.client.get(path, params={name: str(day)}, headers=admin)).status_code == 200
