"""Fetches the pictures, clips and LoRAs that a request refers to."""

from collections.abc import Coroutine, Iterator
from typing import Any

from huggingface_hub import HfApi

from keyreel.errors import Loc, gather
from keyreel.fal.schema import Request
from keyreel.inputs.fetch import Fetcher
from keyreel.inputs.loras import find_lora
from keyreel.media.limits import Limits
from keyreel.video.job import InputFile


async def fetch_inputs(
    request: Request, fetcher: Fetcher, limits: Limits, api: HfApi | None = None
) -> dict[Loc, InputFile]:
    """Fetches all inputs and returns them by location in the request, such as `("images", 0, "image_url")`.

    Skips sources of strength or scale 0, which have no effect. api: the hub, by default without a token. Raises one
    RequestError that names every source that cannot be fetched.
    """
    sources = dict(_sources(request, fetcher, limits, api))
    return dict(zip(sources, await gather(sources.values()), strict=True))


def _sources(
    request: Request, fetcher: Fetcher, limits: Limits, api: HfApi | None
) -> Iterator[tuple[Loc, Coroutine[Any, Any, InputFile]]]:
    loc: Loc
    for index, image in enumerate(request.images):
        if image.strength:
            loc = ("images", index, "image_url")
            yield loc, fetcher.fetch(image.image_url, max_bytes=limits.image_bytes, loc=loc)
    for index, video in enumerate(request.videos):
        if video.strength:
            loc = ("videos", index, "video_url")
            yield loc, fetcher.fetch(video.video_url, max_bytes=limits.video_bytes, loc=loc)
    for index, lora in enumerate(request.loras):
        if lora.scale:
            loc = ("loras", index, "path")
            yield loc, find_lora(lora, fetcher, max_bytes=limits.lora_bytes, loc=loc, api=api)
