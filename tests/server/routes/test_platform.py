"""fal's platform API: programs find endpoints and their prices there."""

import httpx
import pytest

from keyreel.fal.endpoints import ENDPOINTS
from tests.server.live import ENDPOINT, LiveServer

PATHS = [("/platform/v1", {}), ("/v1", {"Host": "api.fal.ai"})]


@pytest.mark.parametrize(("path", "headers"), PATHS)
def test_the_endpoints_are_listed_without_a_key(server: LiveServer, path: str, headers: dict[str, str]) -> None:
    answer = httpx.get(f"{server.url}{path}/models", headers=headers, trust_env=False).json()
    assert [model["endpoint_id"] for model in answer["models"]] == list(ENDPOINTS)
    assert (answer["next_cursor"], answer["has_more"]) == (None, False)
    assert {model["metadata"]["status"] for model in answer["models"]} == {"active"}
    assert not any("openapi" in model for model in answer["models"])


def test_pages_follow_each_other(http: httpx.Client) -> None:
    found, cursor = [], "0"
    while cursor:
        page = http.get("/platform/v1/models", params={"limit": 2, "cursor": cursor}).json()
        found += [model["endpoint_id"] for model in page["models"]]
        cursor = page["next_cursor"]
        assert page["has_more"] is (cursor is not None)
    assert found == list(ENDPOINTS)


def test_an_endpoint_comes_with_its_document(http: httpx.Client) -> None:
    answer = http.get("/platform/v1/models", params={"endpoint_id": ENDPOINT, "expand": "openapi-3.0"}).json()
    (model,) = answer["models"]
    assert model["openapi"] == http.get("/api/openapi/queue/openapi.json", params={"endpoint_id": ENDPOINT}).json()


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({"q": "pinned 13B"}, 4),
        ({"q": "music"}, 0),
        ({"category": "text-to-video"}, 7),
        ({"q": "extends"}, 5),
        ({"status": "active"}, len(ENDPOINTS)),
        ({"status": "deprecated"}, 0),
    ],
)
def test_endpoints_are_searched(http: httpx.Client, query: dict[str, str], count: int) -> None:
    assert len(http.get("/platform/v1/models", params=query).json()["models"]) == count


def test_every_price_is_0(http: httpx.Client) -> None:
    answer = http.get("/platform/v1/models/pricing", params={"endpoint_id": ENDPOINT}).json()
    assert answer["prices"] == [{"endpoint_id": ENDPOINT, "unit_price": 0, "unit": "videos", "currency": "USD"}]
    assert len(http.get("/platform/v1/models/pricing").json()["prices"]) == len(ENDPOINTS)


@pytest.mark.parametrize("path", ["models", "models/pricing"])
def test_an_unknown_endpoint_is_not_found(http: httpx.Client, path: str) -> None:
    answer = http.get(f"/platform/v1/{path}", params={"endpoint_id": ["fal-ai/flux/dev", ENDPOINT]})
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == "Not found on this server: fal-ai/flux/dev."
