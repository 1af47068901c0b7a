"""Pictures and clips as fal's 13B and v095 endpoints describe them, and their conversion to those of a `Request`."""

from typing import Any, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from keyreel.errors import RequestError
from keyreel.fal.schema import Schema, Strength

STEP = 8
"""Frames per latent frame. Clips start at its multiples and have a multiple of it plus one frames."""
SHORTEST_EXTENSION = 2 * STEP + 1
"""Frames of the shortest video in which a clip goes on: the shortest clip, and one new latent frame."""


class ImageConditioningInput(Schema):
    """A picture that the video shows at one frame."""

    image_url: str = Field(description="URL or data URI of the picture.")
    start_frame_num: int = Field(default=0, ge=0, description="Frame that shows the picture, counted from 0.")
    strength: Strength = Field(default=1.0, description="How closely the frame follows the picture.")

    def condition(self) -> dict[str, Any]:
        """Returns the fields of an ImageCondition."""
        return {"image_url": self.image_url, "start_frame_number": self.start_frame_num, "strength": self.strength}


class ExtendVideoConditioningInput(Schema):
    """A clip that the video follows, starting at one frame."""

    video_url: str = Field(description="URL or data URI of the clip.")
    start_frame_num: int = Field(
        default=0, ge=0, description="Frame of the new video at which the clip starts, a multiple of 8."
    )
    strength: Strength = Field(default=1.0, description="How closely the frames follow the clip.")
    limit_num_frames: bool = Field(default=False, description="Use at most `max_num_frames` frames of the clip.")
    max_num_frames: int = Field(
        default=1441, ge=1, description="Maximum number of frames to use if `limit_num_frames` is true."
    )
    resample_fps: bool = Field(default=False, description="Use `target_fps` frames per second of the clip.")
    target_fps: float = Field(
        default=24, ge=1, le=240, description="Frames to use per second of the clip if `resample_fps` is true."
    )
    reverse_video: bool = Field(default=False, description="Use the frames in reverse order.")

    def condition(self) -> dict[str, Any]:
        """Returns the fields of a VideoCondition."""
        return {
            "video_url": self.video_url,
            "start_frame_number": self.start_frame_num,
            "strength": self.strength,
            "target_fps": self.target_fps if self.resample_fps else None,
            "max_num_frames": self.max_num_frames if self.limit_num_frames else None,
            "reverse": self.reverse_video,
        }

    def extension(self, frames: int) -> dict[str, Any]:
        """Returns the fields of the VideoCondition with which a video of `frames` frames extends this clip.

        At frame 0 the video begins with the clip's last frames and goes on. Further back, new frames lead to the clip's
        first ones. Raises RequestError if the video is too short to have a new frame.
        """
        condition = self.condition()
        if self.start_frame_num:
            return condition
        if frames < SHORTEST_EXTENSION:
            raise _too_short()
        longest = min(self.max_num_frames, frames - STEP) if self.limit_num_frames else longest_overlap(frames)
        return condition | {"max_num_frames": longest, "from_end": True}


class VideoConditioningInput(ExtendVideoConditioningInput):
    """A clip that the video follows, starting at one frame."""

    conditioning_type: Literal["rgb", "depth", "pose", "canny"] = Field(
        default="rgb", description="What the clip shows. Only `rgb` is supported: the others need in-context LoRAs."
    )
    preprocess: bool = Field(default=False, description="Has no effect on `rgb` clips.")

    @field_validator("conditioning_type")
    @classmethod
    def _check_it_is_rgb(cls, kind: str) -> str:
        if kind != "rgb":
            raise PydanticCustomError(
                "feature_not_supported",
                "{kind} needs in-context LoRAs, which Keyreel does not support. Send the clip as rgb.",
                {"kind": kind},
            )
        return kind


def longest_overlap(frames: int) -> int:
    """Returns how many frames of a clip a video of `frames` frames repeats at most: 8k+1, about two thirds of it."""
    return max(1, (round(frames * 2 / 3) - 1) // STEP) * STEP + 1


def _too_short() -> RequestError:
    return RequestError.at(
        ("number_of_frames",),
        f"The shortest clip takes {STEP + 1} frames, and new ones must follow: ask for {SHORTEST_EXTENSION} or more.",
        "greater_than_equal",
        ge=SHORTEST_EXTENSION,
    )
