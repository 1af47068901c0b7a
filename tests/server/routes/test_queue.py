"""The exact responses of fal's queue."""

import httpx
import pytest

from keyreel.server.origins import Origins
from keyreel.server.routes.queue import read_result
from keyreel.store.records import State
from tests.server.live import APP, ENDPOINT, LiveServer
from tests.server.queue_api import events, finish, hold, stream, submit


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
    second = submit(http, "second")
    assert second["queue_position"] in (0, 1)  # the worker may not have claimed the first one yet
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
        waiting = http.get(second["status_url"], params={"logs": "true"})
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
    finish(http, second)


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_cancel_with_another_method_is_told_to_use_put(http: httpx.Client, method: str) -> None:
    answer = submit(http, "a fox")
    for url in (answer["cancel_url"], f"/queue/{ENDPOINT}/requests/{answer['request_id']}/cancel"):
        refused = http.request(method, url)
        assert (refused.status_code, refused.headers["allow"]) == (405, "PUT")
        assert refused.json() == {"detail": "Cancel a request with PUT."}
    finish(http, answer)


@pytest.mark.parametrize(("logs", "shown"), [("yes", True), ("on", True), ("1.0", True), ("True", True), ("no", False)])
def test_logs_may_be_asked_for_in_several_words(http: httpx.Client, logs: str, shown: bool) -> None:
    answer = submit(http, "a fox")
    finish(http, answer)
    status = http.get(answer["status_url"], params={"logs": logs}).json()
    assert (status["logs"] is not None) is shown


def test_a_stream_of_a_completed_request_is_one_event(http: httpx.Client) -> None:
    answer = submit(http, "a fox")
    finish(http, answer)
    (event,) = stream(http, f"{answer['status_url']}/stream?logs=1")
    assert [line["message"] for line in event["logs"]] == ["Denoising, step 1 of 2", "Decoding"]


def test_the_result_does_not_wait_for_the_snapshot(http: httpx.Client, server: LiveServer) -> None:
    """A webhook may announce the result before the next refresh of the snapshot."""
    running = hold(http)
    old = server.call(server.services.snapshot.status(running["request_id"]))
    assert old
    assert old.state is State.IN_PROGRESS
    server.release()
    finish(http, running)
    own = Origins(f"{server.url}/queue", server.services.links, server.url)
    assert server.call(read_result(old, server.services, own)).status_code == 200


@pytest.mark.parametrize("prefix", ["", "/queue"])
@pytest.mark.parametrize("path", ["", "/multiconditioning"])
@pytest.mark.parametrize("slash", ["", "/"])
def test_paths_work_with_and_without_prefix_endpoint_and_slash(
    http: httpx.Client, prefix: str, path: str, slash: str
) -> None:
    answer = http.post(f"{prefix}/{ENDPOINT}{slash}", json={"prompt": "a fox"}).json()
    finish(http, answer)
    request = f"{prefix}/{APP}{path}/requests/{answer['request_id']}"
    assert http.get(f"{request}/status{slash}").json()["status"] == "COMPLETED"
    assert stream(http, f"{request}/status/stream{slash}")
    assert http.get(f"{request}{slash}").json()["prompt"] == "a fox"
    assert http.put(f"{request}/cancel{slash}").status_code == 400


@pytest.mark.slow
def test_cancel_tells_whether_the_request_was_queued_running_or_completed(http: httpx.Client) -> None:
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


@pytest.mark.parametrize("suffix", ["", "/status", "/status/stream", "/response"])
def test_an_unknown_request_is_answered_with_404(http: httpx.Client, suffix: str) -> None:
    for path in (f"{APP}/requests/5ad5e6b4-1f4c-4c2c-8d3c-6d2b9e1f2a3b", f"{APP}/requests/%00"):
        answer = http.get(f"/queue/{path}{suffix}")
        assert (answer.status_code, answer.json()) == (404, {"status": "NOT_FOUND"})
    assert http.put(f"/queue/{APP}/requests/none/cancel").json() == {"status": "NOT_FOUND"}


def test_a_request_is_visible_only_to_its_key_in_its_application(http: httpx.Client, server: LiveServer) -> None:
    answer = submit(http, "a fox")
    request = answer["request_id"]
    finish(http, answer)
    other = server.call(server.services.store.keys.create("other"))
    assert http.get(f"/queue/fal-ai/flux/requests/{request}/status").status_code == 404
    assert http.get(f"/queue/{APP}/other/requests/{request}/status").status_code == 404
    other_user = {"Authorization": f"Key {other.key.id}:{other.secret}"}
    assert http.get(answer["status_url"], headers=other_user).json() == {"status": "NOT_FOUND"}
    assert http.put(answer["cancel_url"], headers=other_user).status_code == 404
    assert http.get(answer["status_url"], headers=server.admin_headers).status_code == 200


def test_an_idle_stream_is_kept_open_with_pings(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    running = hold(http)
    monkeypatch.setattr("fastapi.routing._PING_INTERVAL", 0.01)
    with http.stream("GET", f"{running['status_url']}/stream") as answer:
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-accel-buffering"] == "no"
        assert next(line for line in answer.iter_lines() if line.startswith(":")) == ": ping"


def test_the_input_is_validated_when_the_request_runs(http: httpx.Client) -> None:
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


def test_requests_wait_in_order_while_no_worker_runs(http: httpx.Client, server: LiveServer) -> None:
    server.worker.paused = True
    submitted = [submit(http, "a fox", headers={"X-Fal-Queue-Priority": "low"}) for _ in range(3)]
    server.refresh()
    positions = [http.get(answer["status_url"]).json()["queue_position"] for answer in submitted]
    assert positions == [0, 1, 2]
    queue = server.call(server.services.store.requests.queue())
    assert 2 in {place.position for place in queue.values()}
    for answer in submitted:
        http.put(answer["cancel_url"])
    server.worker.paused = False
    finish(http, submit(http, "a fox"))


def test_only_the_url_chooses_the_endpoint(http: httpx.Client, server: LiveServer) -> None:
    """A query parameter does not: it is the input of a GET, and nothing in a POST."""
    answer = http.post(f"/queue/{APP}?path=multiconditioning", json={"prompt": "a fox"}).json()
    assert finish(http, answer)[-1]["status"] == "COMPLETED"
    assert server.worker.leases[-1].endpoint == APP
    assert http.get(f"/{APP}/requests/{answer['request_id']}/status?path=image-to-video").status_code == 200
