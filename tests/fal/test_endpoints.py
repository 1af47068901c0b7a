import pytest

from keyreel.errors import RequestError
from keyreel.fal.endpoints import ENDPOINTS, MULTICONDITIONING, Endpoint
from keyreel.fal.schema import File, Output, Request

SOURCES = {"image_url": "a", "video": {"video_url": "b"}}
"""What some endpoints need and the others ignore."""


def test_ids_name_their_endpoints() -> None:
    assert all(endpoint.id == name for name, endpoint in ENDPOINTS.items())
    assert next(iter(ENDPOINTS)) == MULTICONDITIONING.id == "fal-ai/ltx-video-lora/multiconditioning"


def test_schema_names_are_those_of_fals_openapi() -> None:
    assert MULTICONDITIONING.schema_name == "LtxVideoLoraMulticonditioning"
    assert len({endpoint.schema_name for endpoint in ENDPOINTS.values()}) == len(ENDPOINTS)


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=lambda endpoint: endpoint.id)
def test_every_endpoint_reads_a_request(endpoint: Endpoint) -> None:
    request = endpoint.read({"prompt": "x", "seed": 3} | SOURCES)
    assert isinstance(request, Request)
    assert (request.prompt, request.seed) == ("x", 3)


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=lambda endpoint: endpoint.id)
@pytest.mark.parametrize("data", [None, [], "x", {"prompt": 3}, {"prompt": "x", "seed": "x"} | SOURCES])
def test_every_endpoint_refuses_invalid_input(endpoint: Endpoint, data: object) -> None:
    with pytest.raises(RequestError):
        endpoint.read(data)


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=lambda endpoint: endpoint.id)
def test_outputs_have_the_fields_of_their_endpoint(endpoint: Endpoint) -> None:
    output = Output(prompt="x", seed=3, video=File(url="a"))
    assert endpoint.write(output).keys() == endpoint.application.output.model_fields.keys()
