"""Limits on the inputs of a request."""

from dataclasses import dataclass

from keyreel.settings import Settings


@dataclass(frozen=True, slots=True)
class Limits:
    """Maximum bytes per file, pixels per picture or frame, seconds per clip, and latent cells (tokens) per video.

    picture_memory: bytes that one picture may take while it is decoded.
    """

    image_bytes: int
    video_bytes: int
    lora_bytes: int
    pixels: int
    picture_memory: int
    video_seconds: float
    tokens: int

    @classmethod
    def from_settings(cls, settings: Settings) -> "Limits":
        return cls(
            image_bytes=settings.max_image_bytes,
            video_bytes=settings.max_video_bytes,
            lora_bytes=settings.max_lora_bytes,
            pixels=settings.max_pixels,
            picture_memory=settings.max_picture_memory,
            video_seconds=settings.max_video_seconds,
            tokens=settings.max_tokens,
        )
