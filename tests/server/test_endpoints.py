"""The endpoints that a server offers."""

import pytest
from fastapi import HTTPException

from keyreel.errors import KeyreelError
from keyreel.server.endpoints import ServedEndpoints
from keyreel.settings import Settings


async def test_the_operator_chooses_the_endpoints() -> None:
    listed = " fal-ai/ltx-video-lora/image-to-video, fal-ai/ltx-video-lora"
    chosen = ServedEndpoints.from_settings(Settings(endpoints=listed))
    assert chosen.first.id == "fal-ai/ltx-video-lora/image-to-video"
    assert chosen.find("fal-ai", "ltx-video-lora", "").path == ""
    with pytest.raises(HTTPException, match="Path /multiconditioning not found"):
        chosen.find("fal-ai", "ltx-video-lora", "multiconditioning")
    with pytest.raises(KeyreelError, match="there is no endpoint fal-ai/flux"):
        ServedEndpoints.from_settings(Settings(endpoints="fal-ai/flux"))
