"""huggingface_hub with the provider fal-ai: it makes a video and downloads it."""

import os

from huggingface_hub import InferenceClient
from huggingface_hub.hf_api import InferenceProviderMapping
from huggingface_hub.inference._providers import _common
from report import check, expect, lacks

MODEL = "Lightricks/LTX-Video"
PATHS = {"text-to-video": "fal-ai/ltx-video-lora", "image-to-video": "fal-ai/ltx-video-lora/image-to-video"}
CLIENT = InferenceClient(provider="fal-ai", api_key=os.environ["FAL_KEY"])
videos: list[bytes] = []


def map_to(task: str) -> None:
    """Names the path for a task, so that the hub, which maps names of models, is not asked."""
    _common.HARDCODED_MODEL_INFERENCE_MAPPING["fal-ai"][MODEL] = InferenceProviderMapping(
        provider="fal-ai", hf_model_id=MODEL, providerId=PATHS[task], status="live", task=task
    )


def subscribe() -> None:
    map_to("text-to-video")
    videos.append(CLIENT.text_to_video("a fox", model=MODEL))


def download() -> None:
    expect(videos == [b"the video"], videos)


def file_input() -> None:
    map_to("image-to-video")
    CLIENT.image_to_video(b"a picture", prompt="a file", model=MODEL)


lacks("submit", "status", "result", "cancel", "upload")
check("subscribe", subscribe)
check("download", download)
check("file input", file_input) if hasattr(CLIENT, "image_to_video") else lacks("file input")
