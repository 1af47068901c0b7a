"""LiteLLM's SDK: videos by way of fal. It reads FAL_AI_API_KEY."""

import os
from base64 import b64encode
from typing import Any

import litellm
from report import check, expect, lacks

MODEL = "fal_ai/fal-ai/ltx-video-lora/image-to-video"
PICTURE = "data:image/png;base64," + b64encode(b"a picture").decode()
os.environ["FAL_AI_API_KEY"] = os.environ["FAL_KEY"]
made: dict[str, Any] = {}


def submit() -> None:
    made["video"] = litellm.video_generation(prompt="a fox", model=MODEL, input_reference=PICTURE).id


def completed(video: str) -> None:
    while (status := litellm.video_status(video_id=video).status) in ("queued", "in_progress"):
        pass
    expect(status == "completed", status)


def download() -> None:
    content = litellm.video_content(video_id=made["video"])
    expect(content == b"the video", content)


def file_input() -> None:
    completed(litellm.video_generation(prompt="a file", model=MODEL, input_reference=PICTURE).id)


lacks("result", "subscribe", "cancel", "upload")
check("submit", submit)
check("status", lambda: completed(made["video"]))
check("download", download)
check("file input", file_input)
