"""The endpoint's input and output: the one source for API, command line, page and docs.

Names, defaults and bounds are those that fal publishes for `fal-ai/ltx-video-lora/multiconditioning`. Fields that fal
renamed later are read under both names; unknown fields are ignored, as fal does.
"""

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from keyreel.errors import Problem, RequestError
from keyreel.recipes import RecipeName

Resolution = Literal["480p", "720p"]
AspectRatio = Literal["16:9", "1:1", "9:16", "auto"]
Strength = Annotated[float, Field(ge=0, le=1)]

NEGATIVE_PROMPT = "blurry, low quality, low resolution, inconsistent motion, jittery, distorted"


class _Schema(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, allow_inf_nan=False)


class LoRA(_Schema):
    """Low-rank weights that change what the model draws."""

    path: str = Field(description="URL, hub repository (`owner/name`) or path of the weights (safetensors).")
    weight_name: str | None = Field(default=None, description="File in the repository. Needed when it holds several.")
    scale: float = Field(default=1.0, description="How strongly the LoRA acts. 0 leaves it out.")


class ImageCondition(_Schema):
    """A picture that the video shows at one frame."""

    image_url: str = Field(description="URL or data URI of the picture.")
    start_frame_number: int = Field(default=0, ge=0, description="Frame at which the picture is shown.")
    strength: Strength = Field(default=1.0, description="How closely the frame follows the picture.")


class VideoCondition(_Schema):
    """A clip that the video follows from one frame on."""

    video_url: str = Field(description="URL or data URI of the clip.")
    start_frame_number: int = Field(default=0, ge=0, description="Frame at which the clip starts, a multiple of 8.")
    strength: Strength = Field(default=1.0, description="How closely the frames follow the clip.")


class Request(_Schema):
    """The input of `fal-ai/ltx-video-lora/multiconditioning`."""

    prompt: str = Field(description="What the video shows.")
    negative_prompt: str = Field(default=NEGATIVE_PROMPT, description="What the video should not show.")
    loras: tuple[LoRA, ...] = Field(default=(), description="LoRAs to apply, all at once.")
    resolution: Resolution = Field(default="720p", description="Height of a 16:9 video.")
    aspect_ratio: AspectRatio = Field(
        default="auto", description="Shape of the video; `auto` follows the first picture or clip."
    )
    number_of_frames: int = Field(default=89, ge=9, le=161, description="Frames in the video.")
    number_of_steps: int = Field(
        default=30,
        ge=1,
        le=50,
        validation_alias=AliasChoices("number_of_steps", "num_inference_steps"),
        description="Denoising steps. More are slower and finer.",
    )
    frame_rate: int = Field(
        default=25,
        ge=1,
        le=60,
        validation_alias=AliasChoices("frame_rate", "frames_per_second"),
        description="Frames per second.",
    )
    seed: int | None = Field(
        default=None, ge=-(2**63), lt=2**63, description="Same request, same seed, same video. Drawn when absent."
    )
    expand_prompt: bool = Field(
        default=False,
        validation_alias=AliasChoices("expand_prompt", "enable_prompt_expansion"),
        description="Let a language model elaborate the prompt.",
    )
    reverse_video: bool = Field(default=False, description="Play the finished video backwards.")
    enable_safety_checker: bool = Field(default=True, description="Check prompt, inputs and output.")
    images: tuple[ImageCondition, ...] = Field(default=(), description="Pictures pinned to frames.")
    videos: tuple[VideoCondition, ...] = Field(default=(), description="Clips pinned to frames.")
    recipe: RecipeName | None = Field(
        default=None, description="How the model is run. Keyreel's own field; the server's setting when absent."
    )


class File(_Schema):
    """A file that the endpoint made."""

    url: str
    content_type: str | None = None
    file_name: str | None = None
    file_size: int | None = Field(default=None, description="Bytes.")


class Output(_Schema):
    """The output of `fal-ai/ltx-video-lora/multiconditioning`."""

    prompt: str = Field(description="The prompt that was used.")
    seed: int
    video: File


def parse_request(data: Any) -> Request:
    """Validates a decoded JSON object. Raises RequestError naming every wrong field."""
    try:
        return Request.model_validate(data)
    except ValidationError as error:
        raise RequestError(
            *(
                Problem(item["loc"], item["msg"], item["type"], _plain(item.get("ctx", {})))
                for item in error.errors(include_url=False)
            )
        ) from None


def _plain(context: dict[str, Any]) -> dict[str, Any]:
    """A validator's own exception has no place in a JSON body."""
    return {key: value for key, value in context.items() if not isinstance(value, Exception)}
