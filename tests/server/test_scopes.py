"""What a key may do and until when: scopes and expiry, and the scope that each route declares."""

import asyncio
import inspect
import time
from collections.abc import Iterator
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts
from sqlalchemy import update

from keyreel.server.app import create_app, create_worker_app
from keyreel.server.dependencies import Needs, Services, needs_any_key, needs_no_key
from keyreel.server.routes.storage import signed_upload, uploader
from keyreel.server.sessions import LIFETIME
from keyreel.store.records import NewKey
from keyreel.store.scopes import Scope
from keyreel.store.tables import api_key
from tests.server.live import APP, ENDPOINT
from tests.server.storage_api import Api, initiate, upload_token

DECLARATIONS = (needs_any_key, needs_no_key, signed_upload, uploader)
PLAIN = {"/openapi.json", "/docs", "/docs/oauth2-redirect"}
"""Routes of FastAPI itself, which are open to everyone."""
PAGE = {"X-Keyreel-Page": "1"}
ID = "00000000-0000-4000-8000-000000000000"
CALLS: list[tuple[Scope, str, str]] = [
    (Scope.SUBMIT, "POST", f"/queue/{ENDPOINT}"),
    (Scope.SUBMIT, "POST", f"/run/{ENDPOINT}"),
    (Scope.SUBMIT, "GET", f"/{ENDPOINT}"),
    (Scope.SUBMIT, "PUT", f"/{APP}/requests/{ID}/cancel"),
    (Scope.SUBMIT, "DELETE", f"/api/requests/{ID}"),
    (Scope.SUBMIT, "PUT", "/api/requests/order"),
    (Scope.SUBMIT, "GET", "/api/loras?repository=x"),
    (Scope.READ, "GET", f"/{APP}/requests/{ID}"),
    (Scope.READ, "GET", f"/queue/{ENDPOINT}/requests/{ID}/status"),
    (Scope.READ, "GET", f"/{APP}/requests/{ID}/status/stream"),
    (Scope.READ, "GET", "/api/requests"),
    (Scope.READ, "GET", f"/api/requests/{ID}"),
    (Scope.READ, "GET", "/keys/x/usage"),
    (Scope.READ, "GET", "/keys/x/limits"),
    (Scope.UPLOAD, "POST", "/storage/upload/initiate"),
    (Scope.UPLOAD, "POST", "/storage/upload/initiate-multipart"),
    (Scope.UPLOAD, "POST", "/storage/auth/token"),
    (Scope.UPLOAD, "POST", "/files/upload"),
    (Scope.UPLOAD, "POST", "/files/upload/multipart"),
    (Scope.OPERATE, "GET", "/keys"),
    (Scope.OPERATE, "GET", "/keys/limits"),
    (Scope.OPERATE, "POST", "/keys"),
    (Scope.OPERATE, "DELETE", "/keys/x"),
    (Scope.OPERATE, "PUT", "/keys/x/limits"),
    (Scope.OPERATE, "GET", "/keys/usage.csv"),
    (Scope.OPERATE, "GET", "/api/operate"),
    (Scope.OPERATE, "GET", "/api/operate/requests"),
    (Scope.OPERATE, "GET", "/api/operate/audit"),
    (Scope.OPERATE, "POST", "/api/operate/webhooks/1/retry"),
]


async def new_key(api: Api, *scopes: Scope, **options: Any) -> NewKey:
    return await api.services.store.keys.create("limited", scopes=scopes, **options)


@pytest.fixture(params=["server", "worker"])
def app(request: pytest.FixtureRequest) -> FastAPI:
    services = cast("Services", None)
    return create_app(services) if request.param == "server" else create_worker_app(services, [])


def test_every_route_declares_what_it_needs(app: FastAPI) -> None:
    undeclared = {
        str(context.path): sorted(context.methods or ())
        for context in iter_route_contexts(app.routes)
        if not any(map(_is_declaration, _calls_of(getattr(context, "dependant", None))))
    }
    assert undeclared.keys() <= PLAIN, undeclared


def test_no_dependency_runs_in_a_thread(app: FastAPI) -> None:
    """FastAPI calls a plain function in a thread, which takes longer than all else of a short call."""
    calls = {
        call for context in iter_route_contexts(app.routes) for call in _calls_of(getattr(context, "dependant", None))
    }
    assert calls
    plain = [call for call in calls if not _is_asynchronous(call) and not _is_asynchronous(type(call).__call__)]
    assert plain == []


def _is_asynchronous(call: object) -> bool:
    return inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call)


def _is_declaration(call: object) -> bool:
    return isinstance(call, Needs) or call in DECLARATIONS


def _calls_of(dependant: Dependant | None) -> Iterator[object]:
    for dependency in dependant.dependencies if dependant else ():
        yield dependency.call
        yield from _calls_of(dependency)


@pytest.mark.parametrize("scope", Scope)
async def test_a_call_needs_its_scope_and_no_other(api: Api, scope: Scope) -> None:
    """A call with its scope may still fail, because what it names does not exist."""
    allowed, others = api.auth(await new_key(api, scope)), api.auth(await new_key(api, *(set(Scope) - {scope})))
    for needed, method, path in CALLS:
        if needed is not scope or path.startswith("/run/"):
            continue
        refused = await api.client.request(method, path, headers=others)
        assert refused.status_code == 403, path
        assert refused.json() == {"detail": f"This key lacks the scope `{scope}`, which this call needs."}
        answer = await api.client.request(method, path, headers=allowed)
        assert "lacks the scope" not in answer.text, path


async def test_a_synchronous_run_needs_the_scope_submit(api: Api) -> None:
    reader = api.auth(await new_key(api, Scope.READ))
    assert (await api.client.post(f"/run/{ENDPOINT}", headers=reader)).status_code == 403


async def test_tokens_and_sessions_may_do_no_more_than_their_key(api: Api) -> None:
    reader = await new_key(api, Scope.READ, Scope.OPERATE)
    body = {"allowed_apps": [APP.split("/")[1]]}
    token = (await api.client.post("/tokens", json=body, headers=api.auth(reader))).json()
    bearer = {"Authorization": f"Bearer {token}"}
    assert (await api.client.get(f"/{APP}/requests/{ID}/status", headers=bearer)).status_code == 404
    assert (await api.client.post(f"/queue/{ENDPOINT}", headers=bearer)).status_code == 403
    await api.client.post("/api/session", headers=api.auth(reader))
    assert (await api.client.get("/api/requests", headers=PAGE)).status_code == 200
    assert (await api.client.get("/api/playground", headers=PAGE)).status_code == 200
    assert (await api.client.delete(f"/api/requests/{ID}", headers=PAGE)).status_code == 403


async def test_a_file_with_rules_is_read_with_the_scope_read(api: Api) -> None:
    reader, submitter = await new_key(api, Scope.READ), await new_key(api, Scope.SUBMIT)
    for key, code in ((reader, 200), (submitter, 403)):
        url = await api.add(b"video", key_id=key.key.id, acl={"default": "forbid"}, object=key.key.id)
        assert (await api.client.get(url, headers=api.auth(key))).status_code == code


async def expire(api: Api, key: NewKey) -> None:
    async with api.services.store.database.write() as connection:
        await connection.execute(update(api_key).where(api_key.c.id == key.key.id).values(expires_at=time.time() - 1))
    api.services.keyring.forget()


async def test_everything_of_a_key_ends_when_it_expires(api: Api) -> None:
    api.key = key = await api.services.store.keys.create("guest", expires_at=time.time() + 600)
    urls, upload = await initiate(api), await upload_token(api)
    body = {"allowed_apps": [APP.split("/")[1]]}
    token = (await api.client.post("/tokens", json=body, headers=api.auth())).json()
    await api.client.post("/api/session", headers=api.auth())

    async def answers() -> list[int]:
        status = f"/{APP}/requests/{ID}/status"
        calls = [
            api.client.get("/api/requests", headers=api.auth()),
            api.client.get("/api/requests", headers=PAGE),
            api.client.get(status, headers={"Authorization": f"Bearer {token}"}),
            api.client.post("/files/upload", content=b"x", headers=upload),
            api.client.put(urls["upload_url"], content=b"x"),
        ]
        return [answer.status_code for answer in await asyncio.gather(*calls)]

    assert await answers() == [200, 200, 404, 200, 200]
    await expire(api, key)
    assert await answers() == [401, 401, 401, 401, 403]


@pytest.mark.parametrize(("left", "age"), [(600, 600), (10**9, LIFETIME)])
async def test_a_cookie_lasts_no_longer_than_its_key(api: Api, left: float, age: int) -> None:
    key = await api.services.store.keys.create("guest", expires_at=time.time() + left)
    answer = await api.client.post("/api/session", headers=api.auth(key))
    (field,) = [part for part in answer.headers["set-cookie"].split("; ") if part.startswith("Max-Age=")]
    assert age - 5 <= int(field.removeprefix("Max-Age=")) <= age


async def test_sessions_and_tokens_end_when_the_key_gets_another_secret(api: Api) -> None:
    keys = api.services.store.keys
    operator = NewKey(
        await keys.put("boss", "first secret of the boss", "boss", admin=True), "first secret of the boss"
    )
    await api.client.post("/api/session", headers=api.auth(operator))
    upload = (await api.client.post("/storage/auth/token", json={}, headers=api.auth(operator))).json()["token"]

    async def answers() -> list[int]:
        bearer = {"Authorization": f"Bearer {upload}"}
        api.services.keyring.forget()
        answers = (
            await api.client.get("/keys", headers=PAGE),
            await api.client.post("/files/upload", content=b"x", headers=bearer),
        )
        return [answer.status_code for answer in answers]

    await keys.put("boss", operator.secret, "boss", admin=True)
    assert await answers() == [200, 200], "a restart with the same key changes nothing"
    await keys.put("boss", "second secret of the boss", "boss", admin=True)
    assert await answers() == [401, 401]


async def make(api: Api, **body: Any) -> httpx.Response:
    admin = api.auth(await api.services.store.keys.create("admin", admin=True))
    return await api.client.post("/keys", json={"name": "new", **body}, headers=admin)


async def test_a_key_is_made_with_scopes_and_expiry(api: Api) -> None:
    soon = time.time() + 60
    made = (await make(api, scopes=["upload", "operate"], expires_at=soon)).json()
    assert (made["scopes"], made["admin"], made["expires_at"]) == (["operate", "upload"], True, soon)
    plain = (await make(api)).json()
    assert (plain["scopes"], plain["admin"], plain["expires_at"]) == (["read", "submit", "upload"], False, None)
    assert (await make(api, admin=True)).json()["scopes"] == sorted(Scope)


@pytest.mark.parametrize(
    "body",
    [
        {"scopes": []},
        {"scopes": ["fly"]},
        {"scopes": ["read"], "admin": True},
        {"expires_at": 1},
        {"expires_at": 1e300},
        {"expires_at": "soon"},
    ],
)
async def test_keys_that_make_no_sense_are_refused(api: Api, body: dict[str, Any]) -> None:
    assert (await make(api, **body)).status_code == 422
