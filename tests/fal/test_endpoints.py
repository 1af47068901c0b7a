import pytest

from keyreel.errors import RequestError
from keyreel.fal.endpoints import ENDPOINTS, MULTICONDITIONING, Endpoint
from keyreel.fal.schema import Request


def test_ids_are_those_of_fal() -> None:
    assert list(ENDPOINTS) == [
        "fal-ai/ltx-video-lora/multiconditioning",
        "fal-ai/ltx-video-lora",
        "fal-ai/ltx-video-lora/image-to-video",
        "fal-ai/ltx-video-13b-dev/multiconditioning",
        "fal-ai/ltx-video-13b-distilled/multiconditioning",
    ]
    assert all(endpoint.id == name for name, endpoint in ENDPOINTS.items())


def test_schema_names_are_those_of_fals_openapi() -> None:
    assert MULTICONDITIONING.schema_name == "LtxVideoLoraMulticonditioning"
    assert len({endpoint.schema_name for endpoint in ENDPOINTS.values()}) == len(ENDPOINTS)


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=lambda endpoint: endpoint.id)
def test_every_endpoint_reads_a_request(endpoint: Endpoint) -> None:
    request = endpoint.read({"prompt": "x", "seed": 3, "image_url": "a"})
    assert isinstance(request, Request)
    assert (request.prompt, request.seed) == ("x", 3)


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=lambda endpoint: endpoint.id)
@pytest.mark.parametrize("data", [None, [], "x", {"prompt": 3}, {"prompt": "x", "image_url": "a", "seed": "x"}])
def test_every_endpoint_refuses_invalid_input(endpoint: Endpoint, data: object) -> None:
    with pytest.raises(RequestError):
        endpoint.read(data)
