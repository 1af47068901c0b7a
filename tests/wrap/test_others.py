"""Clients of others that know only fal: Vercel's AI SDK and huggingface_hub. Both make and download a video."""

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.js import install_programs
from tests.server.live import APP, LiveServer, live_server
from tests.wrap.programs import recorder, run_wrapped

HUGGING_FACE = """
import sys
from huggingface_hub import InferenceClient
from huggingface_hub.hf_api import InferenceProviderMapping
from huggingface_hub.inference._providers import _common

# The hub, which maps names of models, is not asked.
_common.HARDCODED_MODEL_INFERENCE_MAPPING["fal-ai"]["Lightricks/LTX-Video"] = InferenceProviderMapping(
    provider="fal-ai", hf_model_id="Lightricks/LTX-Video", providerId=sys.argv[1], status="live", task="text-to-video"
)
client = InferenceClient(provider="fal-ai", api_key=sys.argv[2])
print(client.text_to_video("a fox", model="Lightricks/LTX-Video", seed=3).decode())
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server whose videos can be downloaded from it."""
    with live_server(tmp_path_factory.mktemp("server")) as server:
        made = httpx.post(
            f"{server.url}/storage/upload/initiate", json={"content_type": "video/mp4"}, headers=server.headers
        )
        httpx.put(made.json()["upload_url"], content=b"the video").raise_for_status()
        server.worker.video = {"url": made.json()["file_url"], "content_type": "video/mp4"}
        yield server


async def run(fal: LiveServer, folder: Path, *command: str) -> str:
    async with recorder(folder) as recorded:
        code, out, err = await run_wrapped(
            fal.url, *command, FAL_KEY=fal.credentials, HF_HUB_DISABLE_TELEMETRY="1", **recorded.environment
        )
    assert code == 0, err
    assert recorded.proxied == []
    assert recorded.addresses == {"127.0.0.1"}
    return out


async def test_vercels_ai_sdk_makes_a_video(fal: LiveServer, tmp_path: Path) -> None:
    program = install_programs("wrap") / "vercel.mjs"
    assert (await run(fal, tmp_path, "node", str(program), APP)).splitlines()[-1] == "the video"
    assert fal.worker.leases[-1].input["prompt"] == "a fox"


async def test_hugging_faces_client_makes_a_video(fal: LiveServer, tmp_path: Path) -> None:
    out = await run(fal, tmp_path, sys.executable, "-c", HUGGING_FACE, APP, fal.credentials)
    assert out == "the video\n"
    assert fal.worker.leases[-1].input["prompt"] == "a fox"
