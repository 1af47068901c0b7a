"""The endpoint's input and output: the one source for API, command line, page and docs.

Names, defaults and bounds are those that fal publishes for `fal-ai/ltx-video-lora/multiconditioning`. Fields that fal
renamed later are read under both names; unknown fields are ignored, as fal does.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from keyreel.errors import Loc, Problem, RequestError
from keyreel.recipes import RecipeName, TwoPasses

T = TypeVar("T")

Resolution = Literal["480p", "720p"]
AspectRatio = Literal["16:9", "1:1", "9:16", "auto"]
Strength = Annotated[float, Field(ge=0, le=1)]

EXAMPLE_PROMPTS = (
    "a red circle moving from left to right on a blue background",
    "a big white moon over the sea",
    "a yellow star rising at night",
    "a green square falling on a pink background",
    "an orange ball bouncing over a green meadow",
    "a cyan diamond spinning on a black background",
    "a pink ring moving left at sunset",
    "a red ball and a blue square on a yellow background",
    "a white cross growing on a gradient from red to black",
    "in the desert, a purple triangle that does not move",
    "over a city at night, a big yellow star",
    "a small grey disc sinking in the snow",
)
"""What the demo model understands; larger models do, too."""
NEGATIVE_PROMPT = "blurry, low quality, low resolution, inconsistent motion, jittery, distorted"


class Schema(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, allow_inf_nan=False)


class LoRA(Schema):
    """Low-rank weights that change what the model draws."""

    path: str = Field(description="URL, hub repository (`owner/name`) or path of the weights (safetensors).")
    weight_name: str | None = Field(default=None, description="File in the repository. Needed when it holds several.")
    scale: float = Field(default=1.0, description="How strongly the LoRA acts. 0 leaves it out.")


class ImageCondition(Schema):
    """A picture that the video shows at one frame."""

    image_url: str = Field(description="URL or data URI of the picture.")
    start_frame_number: int = Field(default=0, ge=0, description="Frame at which the picture is shown.")
    strength: Strength = Field(default=1.0, description="How closely the frame follows the picture.")


class VideoCondition(Schema):
    """A clip that the video follows from one frame on."""

    video_url: str = Field(description="URL or data URI of the clip.")
    start_frame_number: int = Field(default=0, ge=0, description="Frame at which the clip starts, a multiple of 8.")
    strength: Strength = Field(default=1.0, description="How closely the frames follow the clip.")
    target_fps: float | None = Field(
        default=None, ge=1, le=240, description="Take so many frames of each second. All of them when absent."
    )
    max_num_frames: int | None = Field(default=None, ge=1, description="Take no more than the first so many.")
    reverse: bool = Field(default=False, description="Take them in reverse order.")


class Passes(Schema):
    """The steps of a recipe that has two passes. They follow from `number_of_steps` when absent."""

    first_steps: int = Field(ge=1, le=50, description="Steps of the first pass.")
    first_skip_final: int = Field(default=0, ge=0, description="Steps that it leaves out at its end.")
    second_steps: int = Field(ge=1, le=50, description="Steps of the second pass.")
    second_skip_initial: int = Field(default=0, ge=0, description="Steps that it leaves out at its beginning.")

    @field_validator("first_skip_final", "second_skip_initial")
    @classmethod
    def _leaves_a_step(cls, skipped: int, info: ValidationInfo) -> int:
        steps = info.data.get(f"{str(info.field_name).partition('_')[0]}_steps")
        if steps is not None and skipped >= steps:
            raise PydanticCustomError("less_than", "Input should be less than {lt}, the pass's steps", {"lt": steps})
        return skipped

    def plain(self) -> TwoPasses:
        return TwoPasses(self.first_steps, self.first_skip_final, self.second_steps, self.second_skip_initial)


class Input(Schema):
    """What the endpoints with LoRAs have in common. Each one's input can be said as a `Request`."""

    prompt: str = Field(description="What the video shows.", examples=list(EXAMPLE_PROMPTS))
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
    recipe: RecipeName | None = Field(
        default=None, description="How the model is run. Keyreel's own field; the server's setting when absent."
    )
    passes: Passes | None = Field(default=None, description="Steps of a recipe that has two passes. Keyreel's own.")
    tone_map: float | None = Field(
        default=None, ge=0, le=1, description="How strongly extreme latents are compressed. Keyreel's own."
    )
    constant_rate_factor: int = Field(
        default=0,
        ge=0,
        le=51,
        description="Pictures and clips are compressed to this quality of H.264 first, which helps motion; "
        "0 leaves them as they are. Keyreel's own.",
    )

    def request(self) -> "Request":
        """The same in the words of the endpoint that can do everything. Raises ValidationError."""
        return Request(**self.model_dump())

    @classmethod
    def place(cls, loc: Loc) -> Loc:
        """Where the input says what is at `loc` in its request."""
        return loc


class Request(Input):
    """The input of `fal-ai/ltx-video-lora/multiconditioning`."""

    images: tuple[ImageCondition, ...] = Field(default=(), description="Pictures pinned to frames.")
    videos: tuple[VideoCondition, ...] = Field(default=(), description="Clips pinned to frames.")

    def request(self) -> "Request":
        return self


class File(Schema):
    """A file that the endpoint made."""

    url: str
    content_type: str | None = None
    file_name: str | None = None
    file_size: int | None = Field(default=None, description="Bytes.")


class Output(Schema):
    """The output of `fal-ai/ltx-video-lora/multiconditioning`."""

    prompt: str = Field(description="The prompt that was used.")
    seed: int
    video: File


def parse_request(data: Any) -> Request:
    """Validates a decoded JSON object. Raises RequestError naming every wrong field."""
    return validated(lambda: Request.model_validate(data))


def validated(make: Callable[[], T]) -> T:
    """What `make` returns. Its ValidationError becomes a RequestError."""
    try:
        return make()
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
