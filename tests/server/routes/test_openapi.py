"""Documents for programs: OpenAPI, llms.txt and the public key of webhooks."""

import json

import httpx
import pytest

from keyreel.fal.endpoints import ENDPOINTS, Endpoint
from tests.server.live import APP, ENDPOINT, LiveServer


def test_the_openapi_document_has_fals_form(http: httpx.Client, server: LiveServer) -> None:
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


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=lambda endpoint: endpoint.id)
def test_every_endpoint_is_described(http: httpx.Client, endpoint: Endpoint) -> None:
    document = http.get("/api/openapi/queue/openapi.json", params={"endpoint_id": endpoint.id}).json()
    fields = document["components"]["schemas"][f"{endpoint.schema_name}Input"]["properties"]
    assert list(fields) == list(endpoint.input.model_fields)
    text = http.get(f"/models/{endpoint.id}/llms.txt").text
    assert all(f"`{field}`" in text for field in fields)


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
