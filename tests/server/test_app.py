"""What holds for all routes: who is let in, hosts, the proxy, CORS, errors, documents, health."""

import json
from typing import Any

import httpx
import pytest
from fastapi import HTTPException

from keyreel.endpoints import ENDPOINTS, Endpoint
from keyreel.errors import KeyreelError
from keyreel.server.credentials import KeyRing
from keyreel.server.endpoints import Served
from keyreel.settings import Settings
from keyreel.store.records import Worker
from tests.server.live import APP, ENDPOINT, LiveServer

FOX = {"prompt": "a fox", "seed": 3}


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
def test_who_is_not_let_in(http: httpx.Client, way: str, authorization: str, detail: str) -> None:
    headers = [(b"authorization", authorization.encode("latin-1"))]
    answer = http.post(f"/{way}/{ENDPOINT}", json=FOX, headers=headers)
    assert (answer.status_code, answer.json()) == (401, {"detail": detail})


def test_a_temporary_token_is_for_its_applications(http: httpx.Client) -> None:
    token = http.post("/tokens/", json={"allowed_apps": ["ltx-video-lora"], "token_expiration": 60}).json()
    nobody = {"Authorization": ""}
    by_query = http.post(f"/run/{ENDPOINT}", params={"fal_jwt_token": token}, json=FOX, headers=nobody)
    assert by_query.json()["seed"] == 3
    bearer = {"Authorization": f"Bearer {token}"}
    assert http.post(f"/run/{ENDPOINT}", json=FOX, headers=bearer).status_code == 200
    assert http.post("/run/fal-ai/flux/dev", json=FOX, headers=bearer).status_code == 401
    assert http.post("/tokens/", json={}, headers=bearer).status_code == 401
    assert http.get("/keys", headers=bearer).status_code == 401


def test_a_token_of_a_revoked_key(http: httpx.Client, server: LiveServer) -> None:
    key = server.call(server.services.store.keys.create("short-lived"))
    owner = {"Authorization": f"Key {key.key.id}:{key.secret}"}
    token = http.post("/tokens/", json={"allowed_apps": ["ltx-video-lora"]}, headers=owner).json()
    admin = {"Authorization": f"Key {server.admin.key.id}:{server.admin.secret}"}
    assert http.delete(f"/keys/{key.key.id}", headers=admin).status_code == 200
    for headers in (owner, {"Authorization": f"Bearer {token}"}):
        assert http.post(f"/run/{ENDPOINT}", json=FOX, headers=headers).status_code == 401


def test_keys_are_managed_by_administrators(http: httpx.Client, server: LiveServer) -> None:
    assert http.get("/keys").status_code == 403
    assert http.post("/keys", json={"name": "more", "admin": True}).status_code == 403
    admin = {"Authorization": f"Key {server.admin.key.id}:{server.admin.secret}"}
    made = http.post("/keys", json={"name": "more"}, headers=admin)
    assert made.status_code == 201
    key = made.json()
    assert http.get(
        f"/{APP}/requests/x/status", headers={"Authorization": f"Key {key['id']}:{key['secret']}"}
    ).json() == {"status": "NOT_FOUND"}
    listed = http.get("/keys", headers=admin).json()
    assert key["secret"] not in json.dumps(listed)
    assert {each["name"] for each in listed} >= {"admin", "user", "more"}
    assert http.delete(f"/keys/{key['id']}", headers=admin).json() == {"id": key["id"]}
    assert http.delete(f"/keys/{key['id']}", headers=admin).status_code == 404
    assert http.post("/keys", json={"name": ""}, headers=admin).status_code == 422


async def test_the_local_key_and_the_memory_of_keys(server: LiveServer) -> None:
    class Counting:
        asked = 0

        async def verify(self, *credentials: str) -> Any:
            self.asked += 1
            return server.user.key if credentials == ("a", "right") else None

    keys = Counting()
    ring = KeyRing(keys, "secret")  # type: ignore[arg-type]
    assert (await ring.verify("local", "secret")) is not None
    assert (await ring.verify("local", "wrong")) is None
    assert (await ring.verify("local", "\udce9")) is None
    assert keys.asked == 2  # there may be a stored key of that name
    assert [await ring.verify("a", "right") for _ in range(3)] == [server.user.key] * 3
    assert keys.asked == 3
    ring.forget()
    await ring.verify("a", "right")
    assert await ring.verify("a", "wrong") is None
    assert keys.asked == 5


@pytest.mark.parametrize(
    ("host", "way"), [("queue.fal.run", "queue"), ("fal.run", "run"), ("FAL.run:443", "run"), ("ws.fal.run", "run")]
)
def test_the_host_says_what_a_path_means(http: httpx.Client, host: str, way: str) -> None:
    answer = http.post(f"/{ENDPOINT}", json=FOX, headers={"Host": host}).json()
    assert ("request_id" in answer) is (way == "queue")
    assert ("video" in answer) is (way == "run")


@pytest.mark.parametrize(("rest", "media"), [("rest.fal.ai", "v3.fal.media"), ("rest.alpha.fal.ai", "v3b.fal.media")])
def test_hosts_of_files_and_tokens(http: httpx.Client, rest: str, media: str) -> None:
    body = {"file_name": "a.png", "content_type": "image/png"}
    made = http.post("/storage/upload/initiate", json=body, headers={"Host": rest}).json()
    assert http.put(made["upload_url"], content=b"a picture").is_success
    path = httpx.URL(made["file_url"]).raw_path.decode()
    assert http.get(path, headers={"Host": media}).content == b"a picture"
    # Not on the queue's host.
    assert http.get(path, headers={"Host": "queue.fal.run"}).status_code == 404


def test_the_proxy_hands_on_to_our_own_routes(http: httpx.Client) -> None:
    def call(method: str, url: str, **options: Any) -> httpx.Response:
        return http.request(method, "/api/fal/proxy", headers={"x-fal-target-url": url}, **options)

    submitted = call("POST", f"https://queue.fal.run/{ENDPOINT}", json=FOX).json()
    request = f"https://queue.fal.run/{APP}/requests/{submitted['request_id']}"
    events = call("GET", f"{request}/status/stream?logs=1")
    assert events.headers["content-type"].startswith("text/event-stream")
    assert '"COMPLETED"' in events.text
    status = call("GET", f"{request}/status?logs=1")
    assert (status.status_code, len(status.json()["logs"])) == (200, 2)
    result = call("GET", request)
    assert result.headers["x-fal-request-id"] == submitted["request_id"]
    assert call("POST", f"https://fal.run/{ENDPOINT}", json=FOX).json() == result.json()
    assert call("PUT", f"{request}/cancel").status_code == 400
    initiated = call("POST", "https://rest.fal.ai/storage/upload/initiate?storage_type=fal-cdn-v3", json={})
    assert set(initiated.json()) == {"upload_url", "file_url"}


@pytest.mark.parametrize(
    "target",
    [
        "",
        "nonsense",
        "https://example.com/a",
        "http://queue.fal.run/a",
        "https://queue.fal.run.example.com/a",
        "https://user@example.com:80/queue.fal.run",
        "file:///etc/passwd",
        "https://[",
        "https://127.0.0.1/a",
    ],
)
def test_the_proxy_knows_no_other_hosts(http: httpx.Client, target: str) -> None:
    answer = http.get("/api/fal/proxy", headers={"x-fal-target-url": target})
    assert (answer.status_code, answer.json()) == (400, "Invalid request")


def test_the_proxy_needs_a_key(http: httpx.Client) -> None:
    target = {"x-fal-target-url": f"https://queue.fal.run/{ENDPOINT}", "Authorization": ""}
    assert http.post("/api/fal/proxy", json=FOX, headers=target).status_code == 401


def test_browsers_may_call_from_anywhere(http: httpx.Client) -> None:
    asked = "authorization,content-type,x-fal-queue-priority,x-fal-target-url"
    preflight = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": asked,
        "Authorization": "",
    }
    for path in (f"/queue/{ENDPOINT}", "/api/fal/proxy", "/storage/upload/initiate"):
        answer = http.options(path, headers=preflight)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-headers"] == asked
    # Errors, too, or a browser's program cannot read them.
    for path in (f"/queue/{ENDPOINT}", "/nothing"):
        answer = http.post(path, headers={"Origin": "https://app.example", "Authorization": ""})
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "x-fal-request-id" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/queue/a",
        "/queue/a/b/c/d",
        "/a/b/c",
        "/%00",
        "/queue/%ff/%2f/x",
        "/run",
        "/queue/workflows/a/b",
        "/queue/comfy/a/b/c",
    ],
)
def test_unknown_paths(http: httpx.Client, path: str) -> None:
    for method in ("GET", "POST"):
        answer = http.request(method, path)
        assert answer.status_code == 404, answer.text
        assert "not found" in answer.json()["detail"]
        assert answer.headers["x-fal-request-id"]
    assert http.get("/nothing").json() == {"detail": "Path /nothing not found"}


def test_a_method_that_a_path_does_not_have(http: httpx.Client) -> None:
    answer = http.delete(f"/queue/{ENDPOINT}")
    assert (answer.status_code, answer.json()) == (405, {"detail": "Method Not Allowed"})


def test_our_own_faults_are_answered(http: httpx.Client, server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(server.services.signer.__class__, "jwks", lambda _self: broken())
    answer = http.get("/.well-known/jwks.json", headers={"Origin": "https://app.example"})
    assert (answer.status_code, answer.json()) == (500, {"detail": "Internal Server Error"})
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["x-fal-request-id"]


def test_a_body_that_is_too_large(http: httpx.Client, server: LiveServer) -> None:
    limit = server.services.settings.max_body_bytes

    def endless() -> Any:
        yield from (bytes(1 << 16) for _ in range(limit // (1 << 16) + 1))

    answer = http.post(f"/queue/{ENDPOINT}", content=endless())
    assert answer.status_code == 413


def test_openapi_in_fals_form(http: httpx.Client, server: LiveServer) -> None:
    document = http.get("/api/openapi/queue/openapi.json", params={"endpoint_id": ENDPOINT}).json()
    assert document["openapi"] == "3.0.4"
    assert document["info"]["x-fal-metadata"]["endpointId"] == ENDPOINT
    assert document["servers"] == [{"url": f"{server.url}/queue"}]
    request = f"/{ENDPOINT}/requests/{{request_id}}"
    assert list(document["paths"]) == [f"{request}/status", f"{request}/cancel", f"/{ENDPOINT}", request]
    body = document["paths"][f"/{ENDPOINT}"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    name = body["$ref"].rpartition("/")[2]
    schema = document["components"]["schemas"][name]
    assert name == schema["title"] == "LtxVideoLoraMulticonditioningInput"
    assert schema["x-fal-order-properties"][0] == "prompt"
    assert schema["properties"]["number_of_frames"]["maximum"] == 161
    assert document["components"]["schemas"]["ImageCondition"]["properties"]["image_url"]["ui"] == {"field": "image"}
    text = json.dumps(document)
    for newer in ('"anyOf"', '"$defs"', "exclusiveM", '"null"'):  # OpenAPI 3.0 has none of them
        assert newer not in text
    for path in (f"/{APP}/openapi.json", f"/run/{APP}/openapi.json"):
        assert http.get(path).json() == document
    assert http.get("/api/openapi/queue/openapi.json?endpoint_id=fal-ai/flux").status_code == 404


def test_our_own_openapi_and_llms_txt(http: httpx.Client) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    assert {"/{owner}/{alias}/{path}", "/run/{owner}/{alias}/{path}", "/keys", "/health", "/metrics"} <= set(paths)
    text = http.get("/llms.txt").text
    for word in (ENDPOINT, "`number_of_frames` (integer from 9 to 161, default `89`)", "`images`"):
        assert word in text
    assert http.get(f"/models/{ENDPOINT}/llms.txt").text == text
    assert http.get("/models/fal-ai/flux/llms.txt").status_code == 404


def test_the_key_that_signs_webhooks(http: httpx.Client) -> None:
    keys = http.get("/.well-known/jwks.json", headers={"Host": "rest.fal.ai"}).json()["keys"]
    assert keys[0]["crv"] == "Ed25519"


def test_health_and_metrics(http: httpx.Client, server: LiveServer) -> None:
    nobody = {"Authorization": ""}
    assert http.get("/health/live", headers=nobody).json() == {"status": "ok"}
    assert http.get("/health/ready", headers=nobody).status_code == 503
    worker = Worker("w", "default", "cpu", "demo", ready=False)
    server.call(server.services.store.workers.report(worker))
    assert http.get("/health/ready").json() == {"status": "loading"}
    server.call(server.services.store.workers.report(Worker("w", "default", "cpu", "demo", ready=True)))
    assert http.get("/health/ready").json() == {"status": "ok"}
    assert http.get("/health").json()["workers"] == [{"name": "w", "device": "cpu", "model": "demo", "ready": True}]

    server.worker.paused = True
    submitted = http.post(f"/queue/{ENDPOINT}", json=FOX).json()
    text = http.get("/metrics").text
    assert 'keyreel_queue_requests{pool="default",state="IN_QUEUE"} 1.0' in text
    assert 'keyreel_workers{pool="default",ready="true"} 1.0' in text
    assert "keyreel_queue_oldest_seconds" in text
    assert 'keyreel_http_requests_total{code="503",method="GET"}' in text
    http.put(submitted["cancel_url"])
    server.worker.paused = False


def test_the_front_door(http: httpx.Client) -> None:
    answer = http.get("/", headers={"Authorization": ""})
    assert answer.status_code == 200
    assert answer.json()["endpoints"] == list(ENDPOINTS)


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=lambda endpoint: endpoint.id)
def test_every_endpoint_is_described(http: httpx.Client, endpoint: Endpoint) -> None:
    document = http.get("/api/openapi/queue/openapi.json", params={"endpoint_id": endpoint.id}).json()
    fields = document["components"]["schemas"][f"{endpoint.schema_name}Input"]["properties"]
    assert list(fields) == list(endpoint.input.model_fields)
    text = http.get(f"/models/{endpoint.id}/llms.txt").text
    assert all(f"`{field}`" in text for field in fields)


async def test_the_operator_says_which_endpoints_there_are() -> None:
    chosen = Served.by(Settings(endpoints=" fal-ai/ltx-video-lora/image-to-video, fal-ai/ltx-video-lora"))
    assert chosen.first.id == "fal-ai/ltx-video-lora/image-to-video"
    assert chosen.find("fal-ai", "ltx-video-lora", "").path == ""
    with pytest.raises(HTTPException, match="Path /multiconditioning not found"):
        chosen.find("fal-ai", "ltx-video-lora", "multiconditioning")
    with pytest.raises(KeyreelError, match="there is no fal-ai/flux"):
        Served.by(Settings(endpoints="fal-ai/flux"))
