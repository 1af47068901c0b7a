"""The routes that manage keys."""

import json

import httpx

from tests.server.live import APP, LiveServer


def test_only_administrators_manage_keys(http: httpx.Client, server: LiveServer) -> None:
    assert http.get("/keys").status_code == 403
    assert http.post("/keys", json={"name": "more", "admin": True}).status_code == 403
    made = http.post("/keys", json={"name": "more"}, headers=server.admin_headers)
    assert made.status_code == 201
    key = made.json()
    assert http.get(
        f"/{APP}/requests/x/status", headers={"Authorization": f"Key {key['id']}:{key['secret']}"}
    ).json() == {"status": "NOT_FOUND"}
    listed = http.get("/keys", headers=server.admin_headers).json()
    assert key["secret"] not in json.dumps(listed)
    assert {each["name"] for each in listed} >= {"admin", "user", "more"}
    assert http.delete(f"/keys/{key['id']}", headers=server.admin_headers).json() == {"id": key["id"]}
    assert http.delete(f"/keys/{key['id']}", headers=server.admin_headers).status_code == 404
    assert http.post("/keys", json={"name": ""}, headers=server.admin_headers).status_code == 422
