"""The inputs of the sibling endpoints, with fal's names, defaults and bounds, and their conversion to a `Request`."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from keyreel.errors import Loc, RequestError
from keyreel.fal.schema import Input, LoRA, Request, Schema, Strength
from keyreel.video.canvas import AspectRatio, Resolution
from keyreel.video.recipes import DEFAULT_PASSES, DISTILLED_PASSES, RecipeName, TwoPasses, scale_skipped

LIGHTRICKS_NEGATIVE_PROMPT = "worst quality, inconsistent motion, blurry, jittery, distorted"
FULL_ASPECT_RATIOS = Literal["16:9", "1:1", "9:16"]


class TextInput(Input):
    """The input of `fal-ai/ltx-video-lora`."""

    aspect_ratio: FULL_ASPECT_RATIOS = Field(default="16:9", description="Aspect ratio of the video.")


class ImageInput(Input):
    """The input of `fal-ai/ltx-video-lora/image-to-video`."""

    aspect_ratio: AspectRatio = Field(
        default="auto", description="Aspect ratio of the video. `auto` follows the picture."
    )
    image_url: str = Field(description="URL or data URI of the picture that the video starts with.")

    def request(self) -> Request:
        return Request.model_validate({**self.shared_fields(), "images": [{"image_url": self.image_url}]})

    @classmethod
    def translate_loc(cls, loc: Loc) -> Loc:
        return ("image_url",) if loc[:1] == ("images",) else loc


class ImageConditioningInput(Schema):
    """A picture that the video shows at one frame."""

    image_url: str = Field(description="URL or data URI of the picture.")
    start_frame_num: int = Field(default=0, ge=0, description="Frame that shows the picture, counted from 0.")
    strength: Strength = Field(default=1.0, description="How closely the frame follows the picture.")


class VideoConditioningInput(Schema):
    """A clip that the video follows, starting at one frame."""

    video_url: str = Field(description="URL or data URI of the clip.")
    start_frame_num: int = Field(default=0, ge=0, description="Frame at which the clip starts, a multiple of 8.")
    strength: Strength = Field(default=1.0, description="How closely the frames follow the clip.")
    conditioning_type: Literal["rgb", "depth", "pose", "canny"] = Field(
        default="rgb", description="What the clip shows. Only `rgb` is supported: the others need in-context LoRAs."
    )
    preprocess: bool = Field(default=False, description="Has no effect on `rgb` clips.")
    limit_num_frames: bool = Field(default=False, description="Use at most `max_num_frames` frames of the clip.")
    max_num_frames: int = Field(
        default=1441, ge=1, description="Maximum number of frames to use if `limit_num_frames` is true."
    )
    resample_fps: bool = Field(default=False, description="Use `target_fps` frames per second of the clip.")
    target_fps: float = Field(
        default=24, ge=1, le=240, description="Frames to use per second of the clip if `resample_fps` is true."
    )
    reverse_video: bool = Field(default=False, description="Use the frames in reverse order.")


class TwoPassInput(Schema):
    """The fields that `fal-ai/ltx-video-13b-dev/multiconditioning` and its distilled counterpart share.

    default_passes: the passes from which absent fields are derived. renamed_locs, renamed_fields: the names in this
    input of locations and fields in a Request.
    """

    recipe: ClassVar[RecipeName]
    default_passes: ClassVar[TwoPasses]
    renamed_locs: ClassVar[Mapping[Loc, Loc]] = {
        ("recipe",): (),
        ("passes", "first_steps"): ("first_pass_num_inference_steps",),
        ("passes", "first_skip_final"): ("first_pass_skip_final_steps",),
        ("passes", "second_steps"): ("second_pass_num_inference_steps",),
        ("passes", "second_skip_initial"): ("second_pass_skip_initial_steps",),
        ("tone_map",): ("tone_map_compression_ratio",),
    }
    renamed_fields: ClassVar[Mapping[str, str]] = {
        "number_of_frames": "num_frames",
        "start_frame_number": "start_frame_num",
        "reverse": "reverse_video",
    }

    prompt: str = Field(description="What the video shows.")
    negative_prompt: str = Field(
        default=LIGHTRICKS_NEGATIVE_PROMPT,
        description="What the video should not show. Used only by steps with classifier-free guidance.",
    )
    loras: tuple[LoRA, ...] = Field(default=(), description="LoRAs to apply together.")
    resolution: Resolution = Field(default="720p", description="Length of the video's shorter side.")
    aspect_ratio: AspectRatio = Field(
        default="auto", description="Aspect ratio of the video. `auto` follows the first picture or clip."
    )
    seed: int | None = Field(
        default=None,
        ge=-(2**63),
        lt=2**63,
        description="Random seed. The same request and seed give the same video. Chosen at random if absent.",
    )
    num_frames: int = Field(default=121, ge=9, le=161, description="Number of frames in the video.")
    first_pass_num_inference_steps: int
    first_pass_skip_final_steps: int | None = Field(
        default=None,
        ge=0,
        description="Steps skipped at the end of the first pass. If absent, proportional to the steps of the pass.",
    )
    second_pass_num_inference_steps: int
    second_pass_skip_initial_steps: int
    frame_rate: int = Field(default=24, ge=1, le=60, description="Frames per second.")
    expand_prompt: bool = Field(
        default=False, description="Let a language model expand the prompt into a detailed description."
    )
    reverse_video: bool = Field(default=False, description="Play the finished video backwards.")
    enable_safety_checker: bool = Field(default=True, description="Check the prompt, the inputs and the video.")
    enable_detail_pass: bool = Field(default=False, description="Has no effect: the second pass always runs.")
    temporal_adain_factor: float = Field(
        default=0.5, ge=0, le=1, description="Has no effect: a video is generated in one piece, not in chunks."
    )
    tone_map_compression_ratio: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="How strongly extreme latent values are compressed. If absent, the server's setting applies.",
    )
    constant_rate_factor: int = Field(
        default=29,
        ge=0,
        le=51,
        description="H.264 rate factor at which pictures and clips are compressed before use. 0 leaves them unchanged.",
    )
    images: tuple[ImageConditioningInput, ...] = Field(default=(), description="Pictures pinned to frames.")
    videos: tuple[VideoConditioningInput, ...] = Field(default=(), description="Clips pinned to frames.")

    def request(self) -> Request:
        """Converts the input to a Request. Raises ValidationError, and RequestError for unsupported features."""
        shared = self.model_dump(include=set(Request.model_fields), exclude={"images", "videos"})
        converted = {
            "number_of_frames": self.num_frames,
            "recipe": self.recipe,
            "passes": self._passes(),
            "tone_map": self.tone_map_compression_ratio,
            "images": [_picture(image) for image in self.images],
            "videos": [_clip(video, index) for index, video in enumerate(self.videos)],
        }
        return Request.model_validate(shared | converted)

    @classmethod
    def translate_loc(cls, loc: Loc) -> Loc:
        if loc in cls.renamed_locs:
            return cls.renamed_locs[loc]
        return tuple(cls.renamed_fields.get(str(part), part) for part in loc)

    def _passes(self) -> dict[str, int]:
        first, default = self.first_pass_num_inference_steps, self.default_passes
        skipped = self.first_pass_skip_final_steps
        return {
            "first_steps": first,
            "first_skip_final": scale_skipped(default.skip_final, default.first, first) if skipped is None else skipped,
            "second_steps": self.second_pass_num_inference_steps,
            "second_skip_initial": self.second_pass_skip_initial_steps,
        }


class DevInput(TwoPassInput):
    """The input of `fal-ai/ltx-video-13b-dev/multiconditioning`."""

    recipe = "multiscale"
    default_passes = DEFAULT_PASSES

    first_pass_num_inference_steps: int = Field(default=30, ge=2, le=50, description="Steps of the first pass.")
    second_pass_num_inference_steps: int = Field(default=30, ge=2, le=50, description="Steps of the second pass.")
    second_pass_skip_initial_steps: int = Field(
        default=17, ge=0, le=49, description="Steps skipped at the start of the second pass."
    )


class DistilledInput(TwoPassInput):
    """The input of `fal-ai/ltx-video-13b-distilled/multiconditioning`."""

    recipe = "distilled-multiscale"
    default_passes = DISTILLED_PASSES

    first_pass_num_inference_steps: int = Field(default=8, ge=2, le=12, description="Steps of the first pass.")
    second_pass_num_inference_steps: int = Field(default=8, ge=2, le=12, description="Steps of the second pass.")
    second_pass_skip_initial_steps: int = Field(
        default=5, ge=1, le=11, description="Steps skipped at the start of the second pass."
    )


AnyInput = Input | TwoPassInput


def _picture(image: ImageConditioningInput) -> dict[str, Any]:
    return {"image_url": image.image_url, "start_frame_number": image.start_frame_num, "strength": image.strength}


def _clip(video: VideoConditioningInput, index: int) -> dict[str, Any]:
    if video.conditioning_type != "rgb":
        raise RequestError.at(
            ("videos", index, "conditioning_type"),
            f"{video.conditioning_type} needs in-context LoRAs, which Keyreel does not support. Send the clip as rgb.",
            "feature_not_supported",
        )
    return {
        "video_url": video.video_url,
        "start_frame_number": video.start_frame_num,
        "strength": video.strength,
        "target_fps": video.target_fps if video.resample_fps else None,
        "max_num_frames": video.max_num_frames if video.limit_num_frames else None,
        "reverse": video.reverse_video,
    }
