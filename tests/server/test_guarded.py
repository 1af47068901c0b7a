"""An expanded prompt, a signed video and a refused picture, as fal's Python client sees them."""

import io
from pathlib import Path
from typing import Any

import c2pa
import fal_client
import httpx
import pytest
from fal_client import client as hosts

from tests.safety.chat_server import Chat, chat, completion
from tests.server.live import ENDPOINT
from tests.server.whole import KEY, small, whole_server
from tests.worker.faces import FACES, PORTRAIT

__all__ = ["chat"]


@pytest.mark.slow
async def test_a_client_gets_expanded_prompts_signed_videos_and_refusals(
    tmp_path: Path, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat.reply = lambda order: completion(f"{order['messages'][1]['content']} rolls over wet sand")
    guarded: dict[str, Any] = {"expander_url": chat.url, "expander_model": "llama", "provenance": True, **FACES}
    async with whole_server(tmp_path, **guarded) as server:
        monkeypatch.setattr(hosts, "QUEUE_URL_FORMAT", f"{server.url}/queue/")
        client = fal_client.AsyncClient(key=KEY)
        allowed = small("a red ball", expand_prompt=True, enable_safety_checker=True)
        output = await client.subscribe(ENDPOINT, allowed)
        assert output["prompt"] == "a red ball rolls over wet sand"
        async with httpx.AsyncClient(trust_env=False) as browser:
            video = await browser.get(output["video"]["url"])
        with c2pa.Reader("video/mp4", io.BytesIO(video.content)) as reader:
            assert reader.get_validation_state() == "Valid"
        portrait = small(images=[{"image_url": PORTRAIT}], enable_safety_checker=True)
        with pytest.raises(fal_client.FalClientHTTPError) as caught:
            await client.subscribe(ENDPOINT, portrait)
        await (await client._client).aclose()
        await server.end()
    problems: Any = caught.value.message
    assert caught.value.status_code == 422
    assert problems[0]["type"] == "content_policy_violation"
    assert problems[0]["loc"] == ["body", "images", 0, "image_url"]
    assert len(list((tmp_path / "files").rglob("*.mp4"))) == 1
    assert not list((tmp_path / "files").rglob("*.jpg"))
