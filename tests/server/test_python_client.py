"""fal's own Python client, unmodified except for the addresses of its hosts."""

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import fal_client
import httpx
import pytest
from fal_client import client as hosts
from httpx_sse import SSEError

from keyreel.fal.endpoints import ENDPOINTS, Endpoint
from tests.server.live import APP, ENDPOINT, INPUT, LiveServer
from tests.server.webhook_receiver import receiver, verify_by_jwks


@pytest.fixture(autouse=True)
def pointed(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points the client at the server over plain HTTP, as docs/clients.md shows."""
    monkeypatch.setattr(hosts, "QUEUE_URL_FORMAT", f"{server.url}/queue/")
    monkeypatch.setattr(hosts, "RUN_URL_FORMAT", f"{server.url}/run/")
    monkeypatch.setattr(hosts, "REST_URL", server.url)
    monkeypatch.setattr(hosts, "CDN_URL", server.url)


@pytest.fixture
def client(server: LiveServer) -> Iterator[fal_client.SyncClient]:
    client = fal_client.SyncClient(key=server.credentials)
    yield client
    client._client.close()
    server.cancel_all()


def subscribe(client: fal_client.SyncClient, arguments: dict[str, Any], **options: Any) -> Any:
    return client.subscribe(ENDPOINT, arguments, interval=0.02, **options)


def test_subscribe_reports_updates_and_logs(client: fal_client.SyncClient, server: LiveServer) -> None:
    updates: list[fal_client.Status] = []
    enqueued: list[str] = []

    def on_update(update: fal_client.Status) -> None:
        updates.append(update)
        if isinstance(update, fal_client.InProgress) and update.logs:
            server.release()

    arguments = {"prompt": "hold", "seed": 5}
    output = subscribe(client, arguments, with_logs=True, on_enqueue=enqueued.append, on_queue_update=on_update)
    assert output["seed"] == 5
    assert len(enqueued) == 1
    last = updates[-1]
    assert isinstance(last, fal_client.Completed)
    assert [line["message"] for line in last.logs or ()] == ["Holding", "Released"]
    assert last.metrics["inference_time"] >= 0


@pytest.mark.slow
@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=ENDPOINTS)
def test_every_endpoint_answers_with_its_output(client: fal_client.SyncClient, endpoint: Endpoint) -> None:
    sources = {"image_url": "https://example.com/a.png", "video": {"video_url": "https://example.com/a.mp4"}}
    output = client.subscribe(endpoint.id, INPUT | sources, interval=0.02)
    assert (output["seed"], output.keys()) == (3, endpoint.application.output.model_fields.keys())


@pytest.mark.slow
def test_submit_then_status_then_result(client: fal_client.SyncClient) -> None:
    handle = client.submit(ENDPOINT, {"prompt": "a fox"}, priority="low", hint="warm", start_timeout=60)
    assert handle.get(interval=0.02)["prompt"] == "a fox"
    assert isinstance(handle.status(), fal_client.Completed)
    # With the id alone, the client builds the URLs.
    assert isinstance(client.status(ENDPOINT, handle.request_id, with_logs=True), fal_client.Completed)
    assert client.result(APP, handle.request_id) == handle.get()


@pytest.mark.slow
def test_cancel_of_queued_and_running_requests(client: fal_client.SyncClient) -> None:
    running = client.submit(ENDPOINT, {"prompt": "hold"})
    for status in running.iter_events(interval=0.02):
        if isinstance(status, fal_client.InProgress):
            break
    queued = client.submit(ENDPOINT, {"prompt": "hold"})
    assert isinstance(queued.status(), fal_client.Queued)
    for handle in (queued, running):
        handle.cancel()
        with pytest.raises(fal_client.FalClientHTTPError) as caught:
            handle.get(interval=0.02)
        assert (caught.value.status_code, caught.value.error_type) == (499, "client_cancelled")
        with pytest.raises(fal_client.FalClientHTTPError) as caught:
            handle.cancel()
        assert caught.value.status_code == 400


@pytest.mark.slow
def test_a_timeout_of_the_client_cancels_the_request(client: fal_client.SyncClient, server: LiveServer) -> None:
    with pytest.raises(fal_client.FalClientTimeoutError) as caught:
        subscribe(client, {"prompt": "hold"}, client_timeout=1.1)
    assert caught.value.request_id
    status = server.call(server.services.snapshot.completed(caught.value.request_id))
    assert getattr(status.outcome, "type", None) == "client_cancelled"


@pytest.mark.parametrize("way", ["subscribe", "run"])
def test_a_missing_prompt_is_refused(client: fal_client.SyncClient, way: str) -> None:
    """The error is the same whether the server or the worker finds it."""
    with pytest.raises(fal_client.FalClientHTTPError) as caught:
        subscribe(client, {}) if way == "subscribe" else client.run(ENDPOINT, {})
    assert (caught.value.status_code, caught.value.error_type) == (422, "missing")
    (problem,) = cast("list[Any]", caught.value.message)
    assert problem["loc"] == ["body", "prompt"]
    assert caught.value.response_headers["x-fal-request-id"]


@pytest.mark.parametrize("way", ["subscribe", "run"])
@pytest.mark.parametrize(
    ("prompt", "code"),
    [
        ("refuse file_too_large", 422),
        ("refuse generation_timeout", 504),
        ("refuse downstream_service_unavailable", 500),
        ("fail runner_disconnected", 503),
        ("fail runner_incomplete_response", 502),
        ("fail runner_server_error", 500),
        ("fail request_timeout", 504),
        ("fail unheard_of", 500),
    ],
)
def test_every_class_of_error(client: fal_client.SyncClient, way: str, prompt: str, code: int) -> None:
    with pytest.raises(fal_client.FalClientHTTPError) as caught:
        subscribe(client, {"prompt": prompt}) if way == "subscribe" else client.run(ENDPOINT, {"prompt": prompt})
    assert (caught.value.status_code, caught.value.error_type) == (code, prompt.split()[1])


def test_run_returns_the_output(client: fal_client.SyncClient) -> None:
    assert client.run(ENDPOINT, {"prompt": "a fox", "seed": 3})["seed"] == 3


def test_a_stream_ends_with_the_output(client: fal_client.SyncClient) -> None:
    *_, last = client.stream(ENDPOINT, {"prompt": "a fox", "seed": 3})
    assert last["seed"] == 3
    # The client looks only at the type of the content, not at the status.
    with pytest.raises(SSEError):
        next(iter(client.stream(ENDPOINT, {})))


@pytest.mark.slow
# fal's client does not close the connection that it uploads through.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_a_file_is_uploaded_and_a_data_uri_is_stored(
    client: fal_client.SyncClient, server: LiveServer, tmp_path: Path
) -> None:
    file = tmp_path / "clip.mp4"
    file.write_bytes(b"a clip")
    uploaded, inline = client.upload_file(file), fal_client.encode_file(file)
    gc.collect()
    subscribe(client, {"prompt": "a fox", "videos": [{"video_url": uploaded}, {"video_url": inline}]})
    linked, stored = (video["video_url"] for video in server.worker.leases[-1].input["videos"])
    assert linked == uploaded
    for url in (linked, stored):
        assert url.startswith(f"{server.url}/files/")


def test_a_wrong_key_is_refused(server: LiveServer) -> None:
    client = fal_client.SyncClient(key=f"{server.user.key.id}:wrong")
    with client._client, pytest.raises(fal_client.FalClientHTTPError) as caught:
        client.submit(ENDPOINT, {"prompt": "a fox"})
    assert caught.value.status_code == 401


async def test_the_async_client_reports_updates(server: LiveServer) -> None:
    client = fal_client.AsyncClient(key=server.credentials)
    async with await client._client:
        updates: list[fal_client.Status] = []
        output = await client.subscribe(
            ENDPOINT, {"prompt": "a fox"}, with_logs=True, interval=0.02, on_queue_update=updates.append
        )
        assert output["prompt"] == "a fox"
        assert isinstance(updates[-1], fal_client.Completed)


async def test_a_webhook_is_verified_against_the_published_keys(server: LiveServer) -> None:
    client = fal_client.AsyncClient(key=server.credentials)
    async with await client._client, receiver() as hook:
        handle = await client.submit(ENDPOINT, {"prompt": "a fox", "seed": 3}, webhook_url=hook.url)
        call = await hook.next()
    body = json.loads(call.body)
    assert (body["request_id"], body["status"], body["payload"]["seed"]) == (handle.request_id, "OK", 3)
    assert verify_by_jwks(call, httpx.get(f"{server.url}/.well-known/jwks.json", trust_env=False).json())
