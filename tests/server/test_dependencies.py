"""Authentication: who may call the routes."""

import httpx
import pytest

from tests.server.live import ENDPOINT, INPUT, LiveServer


@pytest.mark.parametrize(
    ("authorization", "detail"),
    [
        ("", f'Cannot access application "{ENDPOINT}". Authentication is required to access this application.'),
        ("Basic x", f'Cannot access application "{ENDPOINT}". Authentication is required to access this application.'),
        ("Bearer x", f'Cannot access application "{ENDPOINT}". Authentication is required to access this application.'),
        ("Key", f'Cannot access application "{ENDPOINT}". Authentication is required to access this application.'),
        ("Key x", "Invalid Key Authorization header format. Expected '<key_id>:<key_secret>'."),
        ("Key x:y", "No user found for Key ID and Secret"),
        ("Key \xe9:\xff", "No user found for Key ID and Secret"),
    ],
)
@pytest.mark.parametrize("way", ["queue", "run"])
def test_wrong_credentials_are_refused(http: httpx.Client, way: str, authorization: str, detail: str) -> None:
    headers = [(b"authorization", authorization.encode("latin-1"))]
    answer = http.post(f"/{way}/{ENDPOINT}", json=INPUT, headers=headers)
    assert (answer.status_code, answer.json()) == (401, {"detail": detail})


@pytest.mark.parametrize("scheme", ["Key", "key", "Bearer", "bearer"])
def test_a_key_may_come_as_bearer(http: httpx.Client, server: LiveServer, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {server.credentials}"}
    assert http.post(f"/run/{ENDPOINT}", json=INPUT, headers=headers).status_code == 200
    wrong = http.post(f"/run/{ENDPOINT}", json=INPUT, headers={"Authorization": f"{scheme} x:y"})
    assert (wrong.status_code, wrong.json()) == (401, {"detail": "No user found for Key ID and Secret"})


def test_a_temporary_token_is_valid_only_for_its_applications(http: httpx.Client) -> None:
    token = http.post("/tokens/", json={"allowed_apps": ["ltx-video-lora"], "token_expiration": 60}).json()
    nobody = {"Authorization": ""}
    by_query = http.post(f"/run/{ENDPOINT}", params={"fal_jwt_token": token}, json=INPUT, headers=nobody)
    assert by_query.json()["seed"] == 3
    bearer = {"Authorization": f"Bearer {token}"}
    assert http.post(f"/run/{ENDPOINT}", json=INPUT, headers=bearer).status_code == 200
    assert http.post("/run/fal-ai/flux/dev", json=INPUT, headers=bearer).status_code == 401
    assert http.post("/tokens/", json={}, headers=bearer).status_code == 401
    assert http.get("/keys", headers=bearer).status_code == 401


def test_a_token_of_a_revoked_key_is_refused(http: httpx.Client, server: LiveServer) -> None:
    key = server.call(server.services.store.keys.create("short-lived"))
    owner = {"Authorization": f"Key {key.key.id}:{key.secret}"}
    token = http.post("/tokens/", json={"allowed_apps": ["ltx-video-lora"]}, headers=owner).json()
    assert http.delete(f"/keys/{key.key.id}", headers=server.admin_headers).status_code == 200
    for headers in (owner, {"Authorization": f"Bearer {token}"}):
        assert http.post(f"/run/{ENDPOINT}", json=INPUT, headers=headers).status_code == 401
