"""Input and output of the main endpoint: the single source for the API, the command line, the page and the docs.

Names, defaults and bounds are those that fal publishes for `fal-ai/ltx-video-lora/multiconditioning`. Fields that fal
renamed later are accepted under both names. Unknown fields are ignored, as on fal; the request's log names them.
"""

from collections.abc import Callable, Mapping
from textwrap import shorten
from typing import Annotated, Any, TypeVar

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from keyreel.errors import Loc, Problem, RequestError
from keyreel.video.canvas import AspectRatio, Resolution
from keyreel.video.recipes import Published, RecipeChoice, TwoPasses

T = TypeVar("T")

Strength = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]
GuidanceScale = Annotated[float, Field(ge=1)]

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
"""Prompts that the demo model understands. Larger models understand them, too."""
SOURCE_FIELDS = {"images": "image_url", "videos": "video_url", "loras": "path"}
"""The lists in a request whose items refer to files, each with the item field that holds the URL or path."""
MAX_IGNORED_LENGTH = 300
"""Characters of a message about fields that are ignored: a client may send any number of them."""
NEGATIVE_PROMPT = "blurry, low quality, low resolution, inconsistent motion, jittery, distorted"


class Schema(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        """Lets null stand for an absent field: typed clients send every optional field."""
        if not isinstance(data, Mapping):
            return data
        required = {name for name, field in cls.model_fields.items() if field.is_required()}
        return {name: value for name, value in data.items() if value is not None or name in required}


class LoRA(Schema):
    """Low-rank weights that change what the model generates."""

    path: str = Field(
        description="URL, Hugging Face repository (`owner/name`) or path of the weights (safetensors), or "
        "`keyreel:NAME` for a LoRA that ships with Keyreel."
    )
    weight_name: str | None = Field(default=None, description="File in the repository. Required if it has several.")
    scale: float = Field(default=1.0, description="Strength of the LoRA. 0 disables it.")


class Cropped(Schema):
    """What is cropped to the video's aspect ratio."""

    focus_x: Share = Field(
        default=0.5,
        description="Point that stays nearest to the centre when the sides are cut off, as a share of the width from "
        "the left. Keyreel extension.",
    )
    focus_y: Share = Field(
        default=0.5,
        description="The same when top and bottom are cut off, as a share of the height from the top. Keyreel "
        "extension.",
    )


class ImageCondition(Cropped):
    """A picture that the video shows at one frame."""

    image_url: str = Field(description="URL or data URI of the picture.")
    start_frame_number: int = Field(default=0, ge=0, description="Frame that shows the picture, counted from 0.")
    strength: Strength = Field(default=1.0, description="How closely the frame follows the picture.")


class VideoCondition(Cropped):
    """A clip that the video follows, starting at one frame."""

    video_url: str = Field(description="URL or data URI of the clip.")
    start_frame_number: int = Field(default=0, ge=0, description="Frame at which the clip starts, a multiple of 8.")
    strength: Strength = Field(default=1.0, description="How closely the frames follow the clip.")
    target_fps: float | None = Field(
        default=None, ge=1, le=240, description="Frames to use per second of the clip. If absent, all frames are used."
    )
    max_num_frames: int | None = Field(
        default=None, ge=1, description="Maximum number of frames to use, counted from the start of the clip."
    )
    reverse: bool = Field(default=False, description="Use the frames in reverse order.")
    skip_frames: int = Field(
        default=0,
        ge=0,
        description="Number of frames to leave out at the start of the clip, before `max_num_frames` are counted. "
        "Keyreel extension.",
    )
    from_end: bool = Field(
        default=False,
        description="Use the last frames of the clip, in the order in which they are used, where `max_num_frames` or "
        "the end of the video leaves no room for all. Keyreel extension.",
    )


class Passes(Schema):
    """The steps of a two-pass recipe. If absent, they are derived from `number_of_steps`."""

    first_steps: int = Field(ge=1, le=50, description="Steps of the first pass.")
    first_skip_final: int = Field(default=0, ge=0, description="Steps skipped at the end of the first pass.")
    second_steps: int = Field(ge=1, le=50, description="Steps of the second pass.")
    second_skip_initial: int = Field(default=0, ge=0, description="Steps skipped at the start of the second pass.")

    @field_validator("first_skip_final", "second_skip_initial")
    @classmethod
    def _check_one_step_remains(cls, skipped: int, info: ValidationInfo) -> int:
        steps = info.data.get(f"{str(info.field_name).partition('_')[0]}_steps")
        if steps is not None and skipped >= steps:
            raise PydanticCustomError("less_than", "Input should be less than {lt}, the pass's steps", {"lt": steps})
        return skipped

    def to_two_passes(self) -> TwoPasses:
        return TwoPasses(self.first_steps, self.first_skip_final, self.second_steps, self.second_skip_initial)


class Input(Schema):
    """The fields that the inputs of all `fal-ai/ltx-video-lora` endpoints share."""

    prompt: str = Field(description="What the video shows.", examples=list(EXAMPLE_PROMPTS))
    negative_prompt: str = Field(default=NEGATIVE_PROMPT, description="What the video should not show.")
    loras: tuple[LoRA, ...] = Field(default=(), description="LoRAs to apply together.")
    resolution: Resolution = Field(default="720p", description="Length of the video's shorter side.")
    aspect_ratio: AspectRatio = Field(
        default="auto", description="Aspect ratio of the video. `auto` follows the first picture or clip."
    )
    number_of_frames: int = Field(default=89, ge=9, le=161, description="Number of frames in the video.")
    number_of_steps: int = Field(
        default=30,
        ge=1,
        le=50,
        validation_alias=AliasChoices("number_of_steps", "num_inference_steps"),
        description="Denoising steps. More steps take longer and give finer results.",
    )
    frame_rate: int = Field(
        default=25,
        ge=1,
        le=60,
        validation_alias=AliasChoices("frame_rate", "frames_per_second"),
        description="Frames per second.",
    )
    seed: int | None = Field(
        default=None,
        ge=-(2**63),
        lt=2**63,
        description="Random seed. The same request and seed give the same video. Chosen at random if absent.",
    )
    expand_prompt: bool = Field(
        default=False,
        validation_alias=AliasChoices("expand_prompt", "enable_prompt_expansion"),
        description="Let a language model expand the prompt into a detailed description.",
    )
    reverse_video: bool = Field(default=False, description="Play the finished video backwards.")
    enable_safety_checker: bool = Field(default=True, description="Check the prompt, the inputs and the video.")
    recipe: RecipeChoice | None = Field(
        default=None,
        description="How the model is run. If absent, the server's setting applies. `published`: as the model's makers "
        "run it, with their number of steps unless the request has its own. Keyreel extension.",
    )
    passes: Passes | None = Field(default=None, description="Steps of a two-pass recipe. Keyreel extension.")
    guidance_scale: GuidanceScale | None = Field(
        default=None,
        description="Scale of classifier-free guidance in the recipe `single`. If absent, the server's setting "
        "applies. Keyreel extension.",
    )
    tone_map: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="How strongly extreme latent values are compressed. If absent, the server's setting applies. "
        "Keyreel extension.",
    )
    constant_rate_factor: int = Field(
        default=0,
        ge=0,
        le=51,
        description="H.264 rate factor at which pictures and clips are compressed before use, which improves motion. "
        "0 leaves them unchanged. Keyreel extension.",
    )

    def request(self) -> "Request":
        """Converts the input to that of the multiconditioning endpoint. Raises ValidationError."""
        return Request(**self.shared_fields())

    def shared_fields(self) -> dict[str, Any]:
        """Returns the fields of a Request. An absent number of steps stays absent: see `with_published_steps`."""
        absent = {"number_of_steps"} - self.model_fields_set
        return self.model_dump(include=set(Request.model_fields) - absent)

    @classmethod
    def translate_loc(cls, loc: Loc) -> Loc:
        """Returns the location in this input of the value at `loc` in its Request."""
        return loc


class Request(Input):
    """The input of `fal-ai/ltx-video-lora/multiconditioning`."""

    images: tuple[ImageCondition, ...] = Field(default=(), description="Pictures pinned to frames.")
    videos: tuple[VideoCondition, ...] = Field(default=(), description="Clips pinned to frames.")

    def request(self) -> "Request":
        return self


class File(Schema):
    """A generated file."""

    url: str = Field(description="Where to read the file.")
    content_type: str | None = Field(default=None, description="Its media type, such as `video/mp4`.")
    file_name: str | None = Field(default=None, description="Name for a copy.")
    file_size: int | None = Field(default=None, description="Size in bytes.")


class Output(Schema):
    """The output of the endpoints of the 13B models."""

    prompt: str = Field(description="The prompt that was used.")
    seed: int = Field(description="The seed that was used.")
    video: File = Field(description="The video.")


class VideoOutput(Schema):
    """The output of the endpoints of the 2B models."""

    seed: int = Field(description="The seed that was used.")
    video: File = Field(description="The video.")


def with_published_steps(request: Request, setting: RecipeChoice | None, published: Published) -> Request:
    """Returns the request with the steps of the model's makers if it runs as published and names no steps itself."""
    if (request.recipe or setting) != "published" or "number_of_steps" in request.model_fields_set:
        return request
    return request.model_copy(update={"number_of_steps": published.steps})


def replace_sources(request: Request, change: Callable[[str], str]) -> Request:
    """Returns the request with `change` applied to every URL and path in it."""
    lists = {
        name: tuple(item.model_copy(update={field: change(getattr(item, field))}) for item in getattr(request, name))
        for name, field in SOURCE_FIELDS.items()
    }
    return request.model_copy(update=lists)


def parse_request(data: Any) -> Request:
    """Validates a decoded JSON object and returns the request. Raises RequestError naming every invalid field."""
    return validated(lambda: Request.model_validate(data))


def ignored_fields(schema: type[BaseModel], data: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns what to tell about fields in a valid input that the schema does not have: a sentence, or nothing."""
    try:
        schema.model_validate(data, extra="forbid")
    except ValidationError as error:
        places = (".".join(map(str, item["loc"])) for item in error.errors(include_url=False, include_input=False))
        names = shorten(", ".join(sorted(places)), MAX_IGNORED_LENGTH, placeholder=" ...")
        return (f"Ignored, because there is no such field: {names}.",)
    return ()


def validated(make: Callable[[], T]) -> T:
    """Returns the result of `make`. Converts a ValidationError to a RequestError."""
    try:
        return make()
    except ValidationError as error:
        raise RequestError(
            *(
                Problem(item["loc"], *_words(item), _json_context(item.get("ctx", {})))
                for item in error.errors(include_url=False)
            )
        ) from None


def _words(item: ErrorDetails) -> tuple[str, str]:
    """Returns message and type. JSON has no tuples."""
    if item["type"] == "tuple_type":
        return "Input should be a valid list", "list_type"
    return item["msg"], item["type"]


def _json_context(context: dict[str, Any]) -> dict[str, Any]:
    """Removes the exceptions that validators raised: JSON cannot hold them."""
    return {key: value for key, value in context.items() if not isinstance(value, Exception)}
