"""The overviews that the page shows, and who may see them."""

import httpx
import pytest

from keyreel.fal.outcomes import Success
from keyreel.store.records import NewRequest
from tests.server.live import APP, ENDPOINT, LiveServer
from tests.server.queue_api import finish, hold, submit
from tests.server.storage_api import Api

NOBODY = {"Authorization": ""}


def test_other_users_requests_and_the_servers_state_are_hidden(http: httpx.Client, server: LiveServer) -> None:
    new = server.call(server.services.store.keys.create("stranger"))
    headers = {"Authorization": f"Key {new.key.id}:{new.secret}"}
    request_id = submit(http, "a secret fox")["request_id"]
    with httpx.Client(base_url=server.url, headers=headers, trust_env=False) as stranger:
        assert stranger.get("/api/operate").status_code == 403
        assert stranger.get("/api/operate/requests").status_code == 403
        assert stranger.post("/api/operate/webhooks/1/retry").status_code == 403
        assert stranger.get(f"/api/requests/{request_id}").status_code == 404
        assert stranger.delete(f"/api/requests/{request_id}").status_code == 404
        assert stranger.get("/api/requests").json() == []


def test_requests_are_listed_page_by_page_with_the_newest_first(http: httpx.Client, server: LiveServer) -> None:
    submitted = [submit(http, f"fox {number}")["request_id"] for number in range(3)]
    first = http.get("/api/requests", params={"limit": 2}).json()
    second = http.get("/api/requests", params={"limit": 1, "before": first[-1]["seq"]}).json()
    assert [each["id"] for each in first + second] == submitted[::-1]
    assert [each["input"]["prompt"] for each in first + second] == ["fox 2", "fox 1", "fox 0"]
    assert {each["endpoint"] for each in first + second} == {ENDPOINT}
    everybodys = http.get("/api/operate/requests", params={"limit": 3}, headers=server.admin_headers).json()
    assert [each["id"] for each in everybodys] == submitted[::-1]
    assert http.get("/api/requests", params={"limit": 201}).status_code == 422


@pytest.mark.parametrize("prompt", ["refuse image_too_small", "fail runner_server_error"])
def test_a_failed_request_has_the_problems_of_its_result(http: httpx.Client, prompt: str) -> None:
    submitted = submit(http, prompt)
    finish(http, submitted)
    view = http.get(f"/api/requests/{submitted['request_id']}").json()
    assert view["error_type"] == prompt.split()[1]
    assert view["problems"] == http.get(submitted["response_url"]).json()["detail"]
    assert "output" not in view


def test_a_shared_video_needs_no_key_and_does_not_tell_who_made_it(http: httpx.Client) -> None:
    submitted = submit(http, "a fox")
    finish(http, submitted)
    own = http.get(f"/api/requests/{submitted['request_id']}").json()
    seen = http.get(f"/api/shared/{own['share']}", headers=NOBODY)
    assert seen.json() == {"output": own["output"], "created": own["created"]}
    for wrong in (submitted["request_id"], f"{own['share']}A", "x"):
        assert http.get(f"/api/shared/{wrong}", headers=NOBODY).status_code == 404
    assert http.delete(f"/api/requests/{submitted['request_id']}").status_code == 204
    assert http.get(f"/api/shared/{own['share']}", headers=NOBODY).status_code == 404


def test_only_a_completed_request_can_be_deleted(http: httpx.Client, server: LiveServer) -> None:
    running = hold(http)
    path = f"/api/requests/{running['request_id']}"
    assert http.delete(path).status_code == 409
    server.release()
    finish(http, running)
    assert http.delete(path).status_code == 204
    assert http.get(path).status_code == 404
    assert http.get(running["response_url"]).status_code == 404


def test_the_order_of_waiting_requests_can_be_changed(http: httpx.Client, server: LiveServer) -> None:
    first = hold(http)
    submitted = [submit(http, f"fox {number}") for number in range(3)]
    running, waiting = first["request_id"], [each["request_id"] for each in submitted]
    order = [waiting[2], running, "unknown", waiting[0], waiting[1]]
    assert http.put("/api/requests/order", json={"ids": order}).status_code == 204
    places = {each["id"]: each["position"] for each in http.get("/api/requests").json()}
    assert [places[each] for each in (*order[:1], *order[3:])] == [0, 1, 2]
    status = http.get(f"/queue/{APP}/requests/{waiting[2]}/status").json()
    assert status["queue_position"] == 0
    new = server.call(server.services.store.keys.create("stranger"))
    headers = {"Authorization": f"Key {new.key.id}:{new.secret}"}
    assert http.put("/api/requests/order", json={"ids": waiting}, headers=headers).status_code == 204
    assert http.get(f"/queue/{APP}/requests/{waiting[2]}/status").json() == status
    assert http.put("/api/requests/order", json={"ids": ["x"] * 1001}).status_code == 422
    server.release()
    for each in (first, *submitted):
        finish(http, each)


def test_the_overview_counts_the_queue_and_the_files(http: httpx.Client, server: LiveServer) -> None:
    def overview() -> dict[str, dict[str, int]]:
        return dict(http.get("/api/operate", headers=server.admin_headers).json())

    before = overview()
    assert before["queue"] == {"IN_QUEUE": 0, "IN_PROGRESS": 0}
    hold(http)
    submit(http)
    http.post("/files/upload", content=b"12345").raise_for_status()
    after = overview()
    assert after["queue"] == {"IN_QUEUE": 1, "IN_PROGRESS": 1}
    assert after["storage"]["files"] == before["storage"]["files"] + 1
    assert after["storage"]["size"] == before["storage"]["size"] + 5


async def test_a_webhook_call_is_retried_unless_it_was_delivered(api: Api) -> None:
    store = api.services.store
    admin = api.auth(await store.keys.create("admin", admin=True))
    new = NewRequest(endpoint=ENDPOINT, key_id=api.key.key.id, input={}, seed=3, webhook_url="http://127.0.0.1:9/hook")
    await store.queue.submit(new)
    lease = await store.queue.claim("worker")
    assert lease
    await store.queue.finish(lease, Success({}))
    (delivery,) = await store.deliveries.claim()
    await store.deliveries.failed(delivery, "The receiver answered with status 302.", permanent=True)
    (call,) = (await api.client.get("/api/operate", headers=admin)).json()["webhooks"]
    assert (call["request_id"], call["url"], call["state"]) == (lease.id, new.webhook_url, "FAILED")
    assert call["error"] == "The receiver answered with status 302."

    retry = f"/api/operate/webhooks/{call['id']}/retry"
    assert (await api.client.post(retry, headers=admin)).status_code == 204
    (again,) = await store.deliveries.claim()
    await store.deliveries.delivered(again)
    assert (await api.client.post(retry, headers=admin)).status_code == 404
    assert (await api.client.post("/api/operate/webhooks/999/retry", headers=admin)).status_code == 404


@pytest.mark.parametrize("number", [-1, 2**63, 2**200])
def test_numbers_that_the_database_cannot_hold_are_refused(http: httpx.Client, server: LiveServer, number: int) -> None:
    for path in ("/api/requests", "/api/operate/requests"):
        assert http.get(path, params={"before": number}, headers=server.admin_headers).status_code == 422
    again = http.post(f"/api/operate/webhooks/{number}/retry", headers=server.admin_headers)
    assert again.status_code == 422
