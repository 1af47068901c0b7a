"""How much a request's pictures and clips may ask for."""

from dataclasses import dataclass

from keyreel.settings import Settings


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes are those of the file, pixels those of one picture or frame, seconds those of a whole clip."""

    image_bytes: int
    video_bytes: int
    pixels: int
    video_seconds: float

    @classmethod
    def from_settings(cls, settings: Settings) -> "Limits":
        return cls(
            settings.max_image_bytes,
            settings.max_video_bytes,
            settings.max_pixels,
            settings.max_video_seconds,
        )
