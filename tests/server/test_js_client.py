"""fal's own JavaScript client, unmodified, pointed at a server in each of its three ways.

The programs are in clients/js/scenarios.mjs.
"""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from keyreel.fal.endpoints import ENDPOINTS
from tests.js import JS, environment, install
from tests.server.live import INPUT, LiveServer

WAYS = ["proxy", "middleware", "fetch"]
ERRORS = {
    "refuse file_download_error": ("ValidationError", 422),
    "refuse content_policy_violation": ("ValidationError", 422),
    "refuse downstream_service_error": ("ApiError", 400),
    "refuse internal_server_error": ("ApiError", 500),
    "fail internal_error": ("ApiError", 500),
    "fail request_timeout": ("ApiError", 504),
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    install()


def outcomes(server: LiveServer, way: str, call: str, *inputs: Any, credentials: str = "") -> list[Any]:
    """Makes a call with each input. Returns the results and errors."""
    return lines(server, way, "outcomes", json.dumps({"way": call, "inputs": inputs}), credentials)


@contextmanager
def started(server: LiveServer, way: str, scenario: str, argument: str, credentials: str) -> Iterator[Iterator[Any]]:
    """Runs a scenario. Yields the lines that it prints."""
    variables = environment(KEYREEL_URL=server.url, FAL_KEY=credentials)
    command = ["node", "scenarios.mjs", way, scenario, argument]
    with subprocess.Popen(command, cwd=JS, env=variables, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout
        yield map(json.loads, program.stdout)
    assert program.returncode == 0


def lines(server: LiveServer, way: str, scenario: str, argument: str = "", credentials: str = "") -> list[Any]:
    """Runs a scenario to its end. Returns the lines that it prints."""
    with started(server, way, scenario, argument, credentials or server.credentials) as printed:
        return list(printed)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", ["polling", "streaming"])
def test_subscribe_reports_updates_and_logs(server: LiveServer, way: str, mode: str) -> None:
    updates = []
    with started(server, way, mode, "", server.credentials) as printed:
        enqueued = next(printed)["enqueued"]
        for line in printed:
            if "result" in line:
                break
            assert "update" in line, line
            updates.append(line["update"])
            if updates[-1].get("logs") and updates[-1]["status"] == "IN_PROGRESS":
                server.release()
    assert line["result"]["requestId"] == enqueued
    assert line["result"]["data"]["seed"] == 5
    assert updates[-1]["status"] == "COMPLETED"
    assert [entry["message"] for entry in updates[-1]["logs"]] == ["Holding", "Released"]
    assert {update["status"] for update in updates} <= {"IN_QUEUE", "IN_PROGRESS", "COMPLETED"}
    assert {update["request_id"] for update in updates} == {enqueued}


def test_every_endpoint_answers_with_its_output(server: LiveServer) -> None:
    clip, before = {"video_url": "blob", "start_frame_num": 8}, len(server.worker.leases)
    inputs = [[name, INPUT | {"image_url": "https://example.com/a.png", "video": clip}] for name in ENDPOINTS]
    answers = {line["endpoint"]: line["data"] for line in lines(server, "proxy", "endpoints", json.dumps(inputs))}
    assert answers.keys() == ENDPOINTS.keys()
    for name, endpoint in ENDPOINTS.items():
        assert answers[name].keys() == endpoint.application.output.model_fields.keys()
    leases = [lease for lease in server.worker.leases[before:] if lease.endpoint.endswith("/extend")]
    sources = [lease.input["video"]["video_url"] for lease in leases]
    assert all(source.startswith(f"{server.url}/files/") for source in sources)
    assert len(sources) == 5


@pytest.mark.parametrize("way", WAYS)
def test_submit_then_status_then_result(server: LiveServer, way: str) -> None:
    submitted, completed, result = lines(server, way, "queue")
    request_id = submitted["submitted"]["request_id"]
    assert submitted["submitted"]["status"] == "IN_QUEUE"
    assert completed["completed"]["status"] == completed["status"]["status"] == "COMPLETED"
    assert [line["message"] for line in completed["completed"]["logs"]] == ["Denoising, step 1 of 2", "Decoding"]
    assert completed["status"]["logs"] is None
    assert result["result"]["requestId"] == request_id
    assert result["result"]["data"]["video"]["content_type"] == "video/mp4"


@pytest.mark.parametrize("way", WAYS)
def test_cancel_of_queued_and_running_requests(server: LiveServer, way: str) -> None:
    for cancelled in lines(server, way, "cancel"):
        assert cancelled["status"]["error_type"] == "client_cancelled"
        assert (cancelled["error"]["name"], cancelled["error"]["status"]) == ("ApiError", 499)
        assert (cancelled["again"]["status"], cancelled["again"]["body"]) == (400, {"status": "ALREADY_COMPLETED"})


def test_a_timeout_of_the_client_cancels_the_request(server: LiveServer) -> None:
    printed = lines(server, "proxy", "timeout")
    (error,) = (line["error"] for line in printed if "error" in line)
    assert "timed out" in error["message"]
    status = server.call(server.services.snapshot.completed(printed[0]["enqueued"]))
    assert getattr(status.outcome, "type", None) == "client_cancelled"


@pytest.mark.parametrize("call", ["subscribe", "run"])
@pytest.mark.parametrize("way", WAYS)
def test_outputs_and_every_class_of_error(server: LiveServer, way: str, call: str) -> None:
    """The error is the same whether the server or the worker finds the mistake."""
    fox, missing, *others = outcomes(server, way, call, INPUT, {}, *({"prompt": prompt} for prompt in ERRORS))
    assert fox["result"]["data"]["seed"] == 3
    assert fox["result"]["requestId"]
    assert (missing["error"]["name"], missing["error"]["status"]) == ("ValidationError", 422)
    assert missing["error"]["prompt"][0]["type"] == "missing"
    assert missing["error"]["requestId"]
    found = [(line["error"]["name"], line["error"]["status"]) for line in others]
    assert found == list(ERRORS.values())
    assert others[-1]["error"]["timeoutType"] == "user"


def test_a_webhook_is_verified_against_the_published_keys(server: LiveServer) -> None:
    (line,) = lines(server, "proxy", "webhook")
    assert (line["call"]["request_id"], line["call"]["status"]) == (line["request_id"], "OK")
    assert line["call"]["payload"]["seed"] == 3
    assert line["verified"] == [True, True]


@pytest.mark.parametrize("way", WAYS)
def test_a_stream_ends_with_the_output(server: LiveServer, way: str) -> None:
    *events, end = lines(server, way, "stream", "a fox")
    assert events[-1]["event"] == end["result"]
    assert end["result"]["video"]["content_type"] == "video/mp4"


def test_run_with_a_get(server: LiveServer) -> None:
    (line,) = lines(server, "proxy", "runByGet")
    assert line["result"]["data"]["seed"] == 9


@pytest.mark.parametrize("way", WAYS)
def test_an_uploaded_file_can_be_read(server: LiveServer, way: str) -> None:
    (line,) = lines(server, way, "upload")
    assert line["url"].startswith(server.url)
    assert (line["type"], line["text"]) == ("video/mp4", "a clip")


@pytest.mark.parametrize("way", WAYS)
def test_a_blob_in_the_input_is_uploaded(server: LiveServer, way: str) -> None:
    assert lines(server, way, "autoUpload") == []
    (image,) = server.worker.leases[-1].input["images"]
    assert image["image_url"].startswith(f"{server.url}/files/")


def test_unknown_keys_and_endpoints_are_refused(server: LiveServer) -> None:
    error = outcomes(server, "proxy", "run", INPUT, credentials="no:body")[-1]["error"]
    assert (error["status"], error["body"]) == (401, {"detail": "No user found for Key ID and Secret"})
    error = lines(server, "proxy", "otherEndpoint", "fal-ai/flux/dev")[-1]["error"]
    assert error["status"] == 404
    error = lines(server, "proxy", "otherEndpoint", "fal-ai/ltx-video-lora/more")[-1]["error"]
    assert error["body"] == {"detail": "Path /more not found"}
