"""fal's queue over plain HTTP, where it matters what exactly is answered."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from keyreel.server.queue import read_result
from keyreel.store import Store, tables
from keyreel.store.records import State
from tests.server.live import APP, ENDPOINT, LiveServer

PIXEL = "data:image/png;base64,iVBORw0KGgo="


def submit(http: httpx.Client, prompt: str = "hold", **options: Any) -> dict[str, Any]:
    answer = http.post(f"/queue/{ENDPOINT}", json={"prompt": prompt}, **options)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-fal-request-id"] == answer.json()["request_id"]
    return dict(answer.json())


def events(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    """Until the server closes the stream."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    for line in answer.iter_lines():
        assert not line.startswith(":"), "nothing happened for so long that the server sent a ping"
        if line.startswith("data: "):
            yield json.loads(line[6:])


def stream(http: httpx.Client, url: str) -> list[dict[str, Any]]:
    with http.stream("GET", url) as answer:
        return list(events(answer))


def finish(http: httpx.Client, submitted: dict[str, Any]) -> list[dict[str, Any]]:
    return stream(http, f"{submitted['status_url']}/stream")


def hold(http: httpx.Client) -> dict[str, Any]:
    """A request that runs until it is released or cancelled."""
    submitted = submit(http)
    with http.stream("GET", f"{submitted['status_url']}/stream") as answer:
        next(event for event in events(answer) if event["status"] == "IN_PROGRESS")
    return submitted


def test_submit_answers_with_absolute_urls(http: httpx.Client, server: LiveServer) -> None:
    answer = submit(http, "a fox")
    base = f"{server.url}/queue/{APP}/requests/{answer['request_id']}"
    assert answer == {
        "status": "IN_QUEUE",
        "request_id": answer["request_id"],
        "gateway_request_id": answer["request_id"],
        "queue_position": answer["queue_position"],
        "response_url": base,
        "status_url": f"{base}/status",
        "cancel_url": f"{base}/cancel",
    }
    assert answer["queue_position"] in (0, 1)
    assert finish(http, answer)[-1]["status"] == "COMPLETED"


def test_a_request_from_submit_to_result(http: httpx.Client, server: LiveServer) -> None:
    answer = submit(http)
    first = submit(http, "second")
    assert first["queue_position"] in (0, 1)  # the first may not have been claimed yet
    with http.stream("GET", f"{answer['status_url']}/stream?logs=1") as streamed:
        updates = events(streamed)
        held = next(event for event in updates if event.get("logs"))
        assert held["status"] == "IN_PROGRESS"
        assert held["metrics"] == {}
        assert held["progress"] == {"stage": "denoise", "step": 1, "steps": 2}
        assert [line["message"] for line in held["logs"]] == ["Holding"]
        assert held["logs"][0]["level"] == "INFO"
        assert held["logs"][0]["timestamp"].endswith("+00:00")

        status = http.get(answer["status_url"])
        assert (status.status_code, status.json()["status"], status.json()["logs"]) == (202, "IN_PROGRESS", None)
        server.refresh()
        waiting = http.get(first["status_url"], params={"logs": "true"})
        assert (waiting.status_code, waiting.json()["queue_position"]) == (202, 0)
        early = http.get(answer["response_url"])
        assert (early.status_code, early.json()) == (400, {"detail": "Request is still in progress"})

        server.release()
        rest = list(updates)
    assert rest[-1]["status"] == "COMPLETED"
    assert [line["message"] for event in rest for line in event["logs"]] == ["Released"]

    status = http.get(answer["status_url"], params={"logs": "true"})
    assert status.status_code == 200
    assert [line["message"] for line in status.json()["logs"]] == ["Holding", "Released"]
    assert status.json()["metrics"]["inference_time"] >= 0
    assert "error" not in status.json()
    result = http.get(answer["response_url"])
    assert result.status_code == 200
    assert result.headers["x-fal-request-id"] == answer["request_id"]
    assert set(result.json()) == {"prompt", "seed", "video"}
    assert http.get(answer["response_url"] + "/response").json() == result.json()
    finish(http, first)


def test_a_stream_of_a_completed_request_is_one_event(http: httpx.Client) -> None:
    answer = submit(http, "a fox")
    finish(http, answer)
    (event,) = stream(http, f"{answer['status_url']}/stream?logs=1")
    assert [line["message"] for line in event["logs"]] == ["Denoising, step 1 of 2", "Decoding"]


def test_a_result_is_told_as_soon_as_there_is_one(http: httpx.Client, server: LiveServer) -> None:
    """A webhook may have told of it before the next snapshot is taken."""
    running = hold(http)
    behind = server.call(server.services.snapshot.status(running["request_id"]))
    assert behind
    assert behind.state is State.IN_PROGRESS
    server.release()
    finish(http, running)
    assert server.call(read_result(behind, server.services)).status_code == 200


@pytest.mark.parametrize("prefix", ["", "/queue"])
@pytest.mark.parametrize("path", ["", "/multiconditioning"])
@pytest.mark.parametrize("slash", ["", "/"])
def test_all_forms_of_the_paths(http: httpx.Client, prefix: str, path: str, slash: str) -> None:
    answer = http.post(f"{prefix}/{ENDPOINT}{slash}", json={"prompt": "a fox"}).json()
    finish(http, answer)
    request = f"{prefix}/{APP}{path}/requests/{answer['request_id']}"
    assert http.get(f"{request}/status{slash}").json()["status"] == "COMPLETED"
    assert stream(http, f"{request}/status/stream{slash}")
    assert http.get(f"{request}{slash}").json()["prompt"] == "a fox"
    assert http.put(f"{request}/cancel{slash}").status_code == 400


def test_cancel_is_answered_truthfully(http: httpx.Client) -> None:
    running = hold(http)
    queued = submit(http)
    answer = http.put(queued["cancel_url"])
    assert (answer.status_code, answer.json()) == (200, {"status": "OK"})
    gone = http.get(queued["status_url"])
    assert gone.status_code == 200
    assert (gone.json()["status"], gone.json()["error_type"]) == ("COMPLETED", "client_cancelled")
    assert gone.json()["metrics"] == {"inference_time": None}

    answer = http.put(running["cancel_url"])
    assert (answer.status_code, answer.json()) == (202, {"status": "CANCELLATION_REQUESTED"})
    assert finish(http, running)[-1]["error_type"] == "client_cancelled"
    answer = http.put(running["cancel_url"])
    assert (answer.status_code, answer.json()) == (400, {"status": "ALREADY_COMPLETED"})
    result = http.get(running["response_url"])
    assert result.status_code == 499
    assert result.headers["x-fal-error-type"] == "client_cancelled"
    assert result.json()["error_type"] == "client_cancelled"


@pytest.mark.parametrize("what", ["", "/status", "/status/stream", "/response"])
def test_a_request_that_is_not_there(http: httpx.Client, what: str) -> None:
    for path in (f"{APP}/requests/5ad5e6b4-1f4c-4c2c-8d3c-6d2b9e1f2a3b", f"{APP}/requests/%00"):
        answer = http.get(f"/queue/{path}{what}")
        assert (answer.status_code, answer.json()) == (404, {"status": "NOT_FOUND"})
    assert http.put(f"/queue/{APP}/requests/none/cancel").json() == {"status": "NOT_FOUND"}


def test_requests_belong_to_a_key_and_an_application(http: httpx.Client, server: LiveServer) -> None:
    answer = submit(http, "a fox")
    request = answer["request_id"]
    finish(http, answer)
    other = server.call(server.services.store.keys.create("other"))
    assert http.get(f"/queue/fal-ai/flux/requests/{request}/status").status_code == 404
    assert http.get(f"/queue/{APP}/other/requests/{request}/status").status_code == 404
    stranger = {"Authorization": f"Key {other.key.id}:{other.secret}"}
    assert http.get(answer["status_url"], headers=stranger).json() == {"status": "NOT_FOUND"}
    assert http.put(answer["cancel_url"], headers=stranger).status_code == 404
    admin = {"Authorization": f"Key {server.admin.key.id}:{server.admin.secret}"}
    assert http.get(answer["status_url"], headers=admin).status_code == 200


def test_the_seed_is_fixed_when_the_request_is_queued(http: httpx.Client, server: LiveServer) -> None:
    drawn, own = submit(http, "a fox"), http.post(f"/queue/{ENDPOINT}", json={"prompt": "a fox", "seed": 7}).json()
    finish(http, drawn)
    finish(http, own)
    lease = next(lease for lease in server.worker.seen if lease.id == drawn["request_id"])
    assert http.get(drawn["response_url"]).json()["seed"] == lease.seed
    assert http.get(own["response_url"]).json()["seed"] == 7


def test_what_the_headers_ask_of_the_queue(http: httpx.Client, server: LiveServer) -> None:
    hold(http)
    low = submit(
        http, "low", headers={"X-Fal-Queue-Priority": "low", "X-Fal-Runner-Hint": "warm", "X-Fal-No-Retry": "1"}
    )
    normal = submit(http, "normal", headers={"X-Fal-Queue-Priority": "urgent", "X-Fal-Store-IO": "0"})
    assert (low["queue_position"], normal["queue_position"]) == (0, 0)
    server.refresh()
    assert http.get(low["status_url"]).json()["queue_position"] == 1
    full = http.post(f"/queue/{ENDPOINT}?fal_max_queue_length=1", json={"prompt": "a fox"})
    assert full.status_code == 429
    assert "2 requests are waiting" in full.json()["detail"]
    server.release()
    finish(http, normal)
    finish(http, low)
    order = [lease.id for lease in server.worker.seen[-2:]]
    assert order == [normal["request_id"], low["request_id"]]


def test_what_the_headers_ask_of_what_is_kept(http: httpx.Client, server: LiveServer) -> None:
    acl = {"default": "forbid", "rules": [{"user": "friend", "decision": "allow"}]}
    preference = json.dumps({"expiration_duration_seconds": 60, "initial_acl": acl})
    own = {"X-Fal-Object-Lifecycle-Preference": preference, "X-Fal-Store-IO": "0", "X-Fal-No-Retry": "yes"}
    asked, usual = submit(http, "a fox", headers=own), submit(http, "a fox")
    finish(http, asked)
    finish(http, usual)
    leases = [
        next(lease for lease in server.worker.seen if lease.id == answer["request_id"]) for answer in (asked, usual)
    ]
    assert [(lease.output_lifetime, lease.output_acl) for lease in leases] == [(60, acl), (None, None)]
    # Three attempts, or one; readable for a day, or an hour.
    assert server.call(kept(server.services.store, asked)) == (1, 3600)
    assert server.call(kept(server.services.store, usual)) == (3, 86_400)


async def kept(store: Store, submitted: dict[str, Any]) -> tuple[int, float]:
    """At how many failures it ends; for how many seconds its outcome is kept."""
    columns = tables.request.c
    statement = select(columns.max_failures, columns.expires_at - columns.finished)
    async with store.database.read() as connection:
        found = await connection.execute(statement.where(columns.id == submitted["request_id"]))
        failures, seconds = found.one()
    return failures, round(seconds)


def test_a_lifecycle_that_cannot_be_read(http: httpx.Client) -> None:
    headers = {"X-Fal-Object-Lifecycle-Preference": '{"initial_acl": {"default": "maybe"}}'}
    answer = http.post(f"/queue/{ENDPOINT}", json={"prompt": "a fox"}, headers=headers)
    assert (answer.status_code, answer.json()["error_type"]) == (400, "bad_request")


def test_headers_for_fals_own_fleet_are_ignored(http: httpx.Client) -> None:
    headers = {"X-Fal-Retry-Config": "{", "X-Fal-Tags": "a=b", "x-app-fal-disable-fallback": "true"}
    finish(http, submit(http, "a fox", headers=headers))


def test_a_stream_in_which_nothing_happens_is_kept_open(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    running = hold(http)
    monkeypatch.setattr("fastapi.routing._PING_INTERVAL", 0.01)
    with http.stream("GET", f"{running['status_url']}/stream") as answer:
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-accel-buffering"] == "no"
        assert next(line for line in answer.iter_lines() if line.startswith(":")) == ": ping"


def test_a_start_timeout(http: httpx.Client, server: LiveServer) -> None:
    held = hold(http)
    # The newer header wins.
    late = submit(http, "late", headers={"X-Fal-Request-Start-Timeout": "0.11", "X-Fal-Request-Timeout": "600"})
    reaped = finish_with_reaps(server, http, late)
    assert reaped["error_type"] == "request_timeout"
    result = http.get(late["response_url"])
    assert result.status_code == 504
    assert result.headers["x-fal-request-timeout-type"] == "user"
    assert result.headers["x-fal-error-type"] == "request_timeout"
    server.release()
    finish(http, held)


def finish_with_reaps(server: LiveServer, http: httpx.Client, submitted: dict[str, Any]) -> dict[str, Any]:
    while (status := http.get(submitted["status_url"])).status_code == 202:
        server.call(server.services.store.queue.reap())
    return dict(status.json())


@pytest.mark.parametrize("value", ["soon", "0.1", "-3", "nan", "inf", ""])
def test_a_start_timeout_that_is_none(http: httpx.Client, value: str) -> None:
    answer = http.post(f"/queue/{ENDPOINT}", json={"prompt": "a"}, headers={"X-Fal-Request-Start-Timeout": value})
    if value:
        assert answer.status_code == 400
        assert answer.json()["error_type"] == answer.headers["x-fal-error-type"] == "bad_request"


@pytest.mark.parametrize(
    "query",
    ["fal_webhook=ftp://example.com", "fal_webhook=nonsense", "fal_webhook=http://[", "fal_max_queue_length=many"],
)
def test_parameters_that_cannot_be_read(http: httpx.Client, query: str) -> None:
    answer = http.post(f"/queue/{ENDPOINT}?{query}", json={"prompt": "a fox"})
    assert (answer.status_code, answer.json()["error_type"]) == (400, "bad_request")


def test_the_same_idempotency_key_gives_the_same_request(http: httpx.Client) -> None:
    headers = {"Idempotency-Key": "once"}
    first = submit(http, "a fox", headers=headers)
    assert submit(http, "a fox", headers=headers)["request_id"] == first["request_id"]
    finish(http, first)
    assert submit(http, "a fox", headers=headers)["request_id"] == first["request_id"]
    other = http.post(f"/queue/{ENDPOINT}", json={"prompt": "a cat"}, headers=headers)
    assert (other.status_code, other.json()["error_type"]) == (400, "bad_request")


def test_data_uris_become_files(http: httpx.Client, server: LiveServer) -> None:
    images = [{"image_url": PIXEL}, {"image_url": "data:nonsense"}, {"image_url": "https://example.com/a.png"}, 3]
    answer = http.post(f"/queue/{ENDPOINT}", json={"prompt": "a fox", "images": images, "videos": {"a": 1}}).json()
    finish(http, answer)
    lease = next(lease for lease in server.worker.seen if lease.id == answer["request_id"])
    stored, broken, linked, wrong = lease.input["images"]
    assert stored["image_url"].startswith(f"{server.url}/files/")
    assert (broken, linked, wrong) == (images[1], images[2], 3)
    file = http.get(stored["image_url"], headers={"Authorization": ""})
    assert file.headers["content-type"] == "image/png"
    assert file.content.startswith(b"\x89PNG")


def test_an_input_is_validated_when_it_runs(http: httpx.Client) -> None:
    answer = http.post(f"/queue/{ENDPOINT}")
    assert answer.status_code == 200  # an empty body is an empty object
    status = finish(http, answer.json())[-1]
    assert (status["status"], status["error_type"]) == ("COMPLETED", "missing")
    result = http.get(answer.json()["response_url"])
    assert result.status_code == 422
    (problem,) = result.json()["detail"]
    assert (problem["loc"], problem["type"]) == (["body", "prompt"], "missing")
    assert problem["url"] == "https://docs.fal.ai/errors#missing"
    assert result.headers["x-fal-billable-units"] == "0"


BAD_BODIES = [
    "{",
    "[]",
    "3",
    '"a"',
    "nul",
    "NaN",
    '{"seed": 1e999}',
    '{"a": "\\ud800"}',
    "[" * 1000,
    "9" * 5000,
    "\xff",
]


@pytest.mark.parametrize("body", BAD_BODIES)
@pytest.mark.parametrize("way", ["queue", "run"])
def test_a_body_that_is_no_json_object(http: httpx.Client, way: str, body: str) -> None:
    answer = http.post(f"/{way}/{ENDPOINT}", content=body.encode("latin-1"))
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body"]


def test_get_takes_the_input_from_the_query(http: httpx.Client) -> None:
    answer = http.get(f"/queue/{ENDPOINT}", params={"prompt": "a fox", "seed": "11"}).json()
    finish(http, answer)
    assert http.get(answer["response_url"]).json()["seed"] == 11


def test_rows_stay_in_the_queue_while_no_worker_runs(http: httpx.Client, server: LiveServer) -> None:
    server.worker.paused = True
    submitted = [submit(http, "a fox", headers={"X-Fal-Queue-Priority": "low"}) for _ in range(3)]
    server.refresh()
    positions = [http.get(answer["status_url"]).json()["queue_position"] for answer in submitted]
    assert positions == [0, 1, 2]
    live = server.call(server.services.store.requests.live())
    assert {(status.state, status.position) for status in live} >= {(State.IN_QUEUE, 2)}
    for answer in submitted:
        http.put(answer["cancel_url"])
    server.worker.paused = False
    finish(http, submit(http, "a fox"))
