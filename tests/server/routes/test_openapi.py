"""Documents for programs: OpenAPI, llms.txt and the public key of webhooks."""

import json
import re
import subprocess
from typing import Any

import httpx
import pytest
from openapi_schema_validator import OAS30Validator

from keyreel.fal.endpoints import ENDPOINTS, Endpoint
from keyreel.fal.openapi import describe
from tests.js import environment
from tests.server.live import APP, ENDPOINT, VIDEO, LiveServer

ONE_OF_EACH_KIND = {endpoint.path: endpoint for endpoint in ENDPOINTS.values()}.values()
UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=lambda endpoint: endpoint.id)
def test_every_endpoint_is_described(http: httpx.Client, server: LiveServer, endpoint: Endpoint) -> None:
    document = http.get("/api/openapi/queue/openapi.json", params={"endpoint_id": endpoint.id}).json()
    assert document == describe(endpoint, server.url)
    assert http.get(f"/models/{endpoint.id}/llms.txt").text.startswith(f"# {endpoint.id}\n")


def test_an_application_has_the_document_of_its_first_endpoint(http: httpx.Client) -> None:
    document = http.get("/api/openapi/queue/openapi.json", params={"endpoint_id": ENDPOINT}).json()
    for path in (f"/{APP}/openapi.json", f"/run/{APP}/openapi.json", "/api/openapi/queue/openapi.json"):
        assert http.get(path).json() == document
    assert http.get("/llms.txt").text == http.get(f"/models/{ENDPOINT}/llms.txt").text


def test_unknown_endpoints_have_no_documents(http: httpx.Client) -> None:
    for path in ("/api/openapi/queue/openapi.json?endpoint_id=fal-ai/flux", "/models/fal-ai/flux/llms.txt"):
        assert http.get(path).status_code == 404


class Described:
    """Calls an endpoint as its document says, and compares each answer with the document."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._document = http.get("/api/openapi/queue/openapi.json", params={"endpoint_id": ENDPOINT}).json()
        for schema in self._document["components"]["schemas"].values():
            schema["additionalProperties"] = False

    def call(self, method: str, suffix: str, request_id: str = "", **options: Any) -> httpx.Response:
        path = f"/{ENDPOINT}{suffix}"
        url = self._document["servers"][0]["url"] + path.format(request_id=request_id)
        answer = self._http.request(method, url, **options)
        described = self._document["paths"][path][method.lower()]["responses"][str(answer.status_code)]
        schema = described["content"]["application/json"]["schema"]
        OAS30Validator(schema | {"components": self._document["components"]}).validate(answer.json())
        return answer


@pytest.mark.slow
def test_answers_are_as_described(http: httpx.Client, server: LiveServer) -> None:
    described = Described(http)
    one, status, cancel = "/requests/{request_id}", "/requests/{request_id}/status", "/requests/{request_id}/cancel"
    request_id = described.call("POST", "", json={"prompt": "hold"}).json()["request_id"]
    server.wait_until(lambda: any(lease.id == request_id for lease in server.worker.leases))
    assert described.call("GET", one, request_id).status_code == 400
    assert described.call("GET", status, request_id, params={"logs": 1}).status_code == 202
    assert described.call("PUT", cancel, request_id).status_code == 202
    server.call(server.services.snapshot.completed(request_id))
    assert described.call("GET", status, request_id).status_code == 200
    assert described.call("GET", one, request_id).status_code == 499
    assert described.call("PUT", cancel, request_id).status_code == 400
    for prompt, code in (("a fox", 200), (3, 422), ("fail internal_error", 500)):
        request_id = described.call("POST", "", json={"prompt": prompt}).json()["request_id"]
        server.call(server.services.snapshot.completed(request_id))
        assert described.call("GET", status, request_id, params={"logs": 1}).json()["status"] == "COMPLETED"
        assert described.call("GET", one, request_id).status_code == code
    assert described.call("GET", status, UNKNOWN).status_code == 404
    assert described.call("PUT", cancel, UNKNOWN).status_code == 404
    assert described.call("GET", one, UNKNOWN).status_code == 404
    assert described.call("POST", "", json={}, headers={"Authorization": "Key a:b"}).status_code == 401
    assert described.call("POST", "", content=b"{").status_code == 422


@pytest.mark.slow
@pytest.mark.parametrize("endpoint", ONE_OF_EACH_KIND, ids=lambda endpoint: endpoint.id)
def test_llms_txt_contains_a_call_that_works(http: httpx.Client, server: LiveServer, endpoint: Endpoint) -> None:
    text = http.get(f"/models/{endpoint.id}/llms.txt").text
    (command,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    program = ["sh", "-c", f"{command.strip()} --silent --show-error"]
    variables = environment(FAL_KEY=server.credentials)
    done = subprocess.run(program, env=variables, capture_output=True, text=True, timeout=20)
    submitted = json.loads(done.stdout)
    server.call(server.services.snapshot.completed(submitted["request_id"]))
    status = http.get(submitted["status_url"], params={"logs": 1})
    assert (status.status_code, status.json()["status"], len(status.json()["logs"])) == (200, "COMPLETED", 2)
    assert http.get(submitted["response_url"]).json()["video"] == VIDEO
    assert http.put(submitted["cancel_url"]).json() == {"status": "ALREADY_COMPLETED"}


def test_llms_txt_says_how_to_upload_and_to_wait(http: httpx.Client, server: LiveServer) -> None:
    text = http.get("/llms.txt").text
    (body,) = re.findall(r"POST `({.*?})`", text)
    (initiate,) = re.findall(rf"`({server.url}/storage/\S+)`", text)
    upload = http.post(initiate, json=json.loads(body)).json()
    assert httpx.put(upload["upload_url"], content=b"a picture", trust_env=False).status_code == 200
    assert httpx.get(upload["file_url"], trust_env=False).content == b"a picture"
    (run,) = re.findall(rf"`({server.url}/run/\S+)`", text)
    wrong = http.post(run, json={})
    assert (wrong.status_code, {"loc", "msg", "type"} <= wrong.json()["detail"][0].keys()) == (422, True)
    assert http.post(run, json={"prompt": "a fox"}).json()["video"] == VIDEO


def test_the_public_key_of_webhooks_is_published(http: httpx.Client) -> None:
    keys = http.get("/.well-known/jwks.json", headers={"Host": "rest.fal.ai"}).json()["keys"]
    assert keys[0]["crv"] == "Ed25519"


def test_the_document_is_compressed_for_those_who_can_read_it(http: httpx.Client) -> None:
    url = f"/api/openapi/queue/openapi.json?endpoint_id={ENDPOINT}"
    plain, short = [http.get(url, headers={"Accept-Encoding": encoding}) for encoding in ("identity", "gzip")]
    assert [answer.headers.get("Content-Encoding") for answer in (plain, short)] == [None, "gzip"]
    assert all("Accept-Encoding" in answer.headers["Vary"] for answer in (plain, short))
    assert plain.json() == short.json()
    assert int(short.headers["Content-Length"]) < 0.3 * int(plain.headers["Content-Length"])
