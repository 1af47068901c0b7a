"""The endpoints that a server offers."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import HTTPException

from keyreel.errors import KeyreelError
from keyreel.fal.endpoints import ENDPOINTS
from keyreel.server.endpoints import ServedEndpoints, pool_of
from keyreel.settings import Settings
from tests.server.live import live_server


async def test_the_operator_chooses_the_endpoints() -> None:
    listed = " fal-ai/ltx-video-lora/image-to-video, fal-ai/ltx-video-lora"
    chosen = ServedEndpoints.from_settings(Settings(endpoints=listed))
    assert chosen.first.id == "fal-ai/ltx-video-lora/image-to-video"
    assert chosen.find("fal-ai", "ltx-video-lora", "").path == ""
    with pytest.raises(HTTPException, match="Path /multiconditioning not found"):
        chosen.find("fal-ai", "ltx-video-lora", "multiconditioning")
    with pytest.raises(KeyreelError, match="there is no endpoint fal-ai/flux"):
        ServedEndpoints.from_settings(Settings(endpoints="fal-ai/flux"))


DEV, DISTILLED = "ltxv-13b-0.9.7-dev", "/models/ltxv-13b-0.9.8-distilled.safetensors+int8"


def served(**settings: Any) -> ServedEndpoints:
    return ServedEndpoints.from_settings(Settings(**settings))


def pools(**settings: Any) -> dict[str, set[str]]:
    """Returns the queues of the endpoints of each application."""
    found: dict[str, set[str]] = {}
    for name, pool in served(**settings).pools.items():
        found.setdefault(ENDPOINTS[name].alias, set()).add(pool)
    return found


@pytest.mark.parametrize("models", ["", "demo", "/models/mine"])
def test_a_single_model_without_endpoints_of_its_own_runs_every_endpoint(models: str) -> None:
    assert served(models=models).pools == dict.fromkeys(ENDPOINTS, "default")


def test_a_single_model_with_endpoints_of_its_own_runs_others_only_if_the_operator_says_so() -> None:
    assert pools(models=DEV) == {"ltx-video-lora": {"default"}, "ltx-video-13b-dev": {"default"}}
    assert served(models=DEV, substitute=True).pools == dict.fromkeys(ENDPOINTS, "default")


def test_endpoints_use_the_model_that_they_were_made_for() -> None:
    dev = {"ltx-video-lora": {"default"}, "ltx-video-13b-dev": {"default"}}
    assert pools(models=f"{DEV}, {DISTILLED}") == dev | {"ltxv-13b-098-distilled": {DISTILLED}}
    swapped = {name: {DEV} for name in dev}
    assert pools(models=f"{DISTILLED},{DEV}") == swapped | {"ltxv-13b-098-distilled": {"default"}}


def test_the_lora_endpoints_run_on_any_model() -> None:
    assert pools(models=f"{DISTILLED},demo")["ltx-video-lora"] == {"default"}
    assert pools(models="demo", substitute=False) == {"ltx-video-lora": {"default"}}


def test_the_operator_lets_the_first_model_stand_in() -> None:
    found = served(models=f"{DEV},{DISTILLED}", substitute=True).pools
    assert found.keys() == ENDPOINTS.keys()
    assert found["fal-ai/ltx-video-v095"] == "default"
    assert found["fal-ai/ltxv-13b-098-distilled/extend"] == DISTILLED


def test_an_endpoint_without_a_model_is_named_with_what_is_served() -> None:
    chosen = served(models=f"{DEV},{DISTILLED}")
    with pytest.raises(HTTPException) as caught:
        chosen.find("fal-ai", "ltx-video-v095", "extend")
    assert caught.value.status_code == 404
    assert caught.value.detail.startswith(
        f"fal-ai/ltx-video-v095/extend was made for LTX-Video 0.9.5, and the models here are {DEV}, {DISTILLED}. "
        "KEYREEL_SUBSTITUTE=true lets another one stand in. This server has fal-ai/ltx-video-lora/multiconditioning, "
    )
    with pytest.raises(KeyreelError, match=r"KEYREEL_ENDPOINTS: fal-ai/ltx-video was made for LTX-Video 0\.9"):
        served(models=f"{DEV},{DISTILLED}", endpoints="fal-ai/ltx-video-lora,fal-ai/ltx-video")


def test_workers_take_requests_of_their_model() -> None:
    assert pool_of("mine", ()) == pool_of(DEV, (DEV, DISTILLED)) == "default"
    assert pool_of(DISTILLED, (DEV, DISTILLED)) == DISTILLED
    with pytest.raises(KeyreelError, match="KEYREEL_MODELS does not name the model mine"):
        pool_of("mine", (DEV,))


def test_documents_follow_the_models(tmp_path: Path) -> None:
    with (
        live_server(tmp_path, models=f"{DEV},{DISTILLED}") as server,
        httpx.Client(base_url=server.url, headers=server.headers, trust_env=False) as http,
    ):
        listed = http.get("/platform/v1/models").json()["models"]
        served_here = {model["endpoint_id"].split("/")[1] for model in listed}
        assert served_here == {"ltx-video-lora", "ltx-video-13b-dev", "ltxv-13b-098-distilled"}
        assert http.get("/").json()["endpoints"] == [model["endpoint_id"] for model in listed]
        assert http.get("/models/fal-ai/ltx-video-v095/llms.txt").status_code == 404
        refused = http.post("/run/fal-ai/ltx-video-v095", json={"prompt": "a fox"})
        assert refused.status_code == 404
        assert "was made for LTX-Video 0.9.5" in refused.json()["detail"]
