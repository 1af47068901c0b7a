"""The inputs of the sibling endpoints, with fal's names, defaults and bounds, and their conversion to a `Request`.

Those of the 13B models, which run in two passes, are in `two_passes.py`.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from keyreel.errors import Loc
from keyreel.fal.conditions import (
    ExtendVideoConditioningInput,
    ImageConditioningInput,
    VideoConditioningInput,
)
from keyreel.fal.schema import GuidanceScale, Input, Request, Schema
from keyreel.video.canvas import AspectRatio, Resolution
from keyreel.video.recipes import RecipeChoice

LIGHTRICKS_NEGATIVE_PROMPT = "worst quality, inconsistent motion, blurry, jittery, distorted"
PREVIEW_NEGATIVE_PROMPT = (
    "low quality, worst quality, deformed, distorted, disfigured, motion smear, motion artifacts, fused fingers, "
    "bad anatomy, weird hand, ugly"
)
FULL_ASPECT_RATIOS = Literal["16:9", "1:1", "9:16"]
FIXED_FRAMES, FIXED_RATE = 121, 24
"""Frames and frame rate of endpoints that have no fields for them: five seconds."""


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


class Variant(Schema):
    """The fields that the inputs of the other applications share.

    renamed: the names in this input of a Request's fields.
    """

    renamed: ClassVar[Mapping[str, str]] = {"start_frame_number": "start_frame_num", "reverse": "reverse_video"}

    prompt: str = Field(description="What the video shows.")
    negative_prompt: str = Field(
        default=LIGHTRICKS_NEGATIVE_PROMPT,
        description="What the video should not show. Used only by steps with classifier-free guidance.",
    )
    seed: int | None = Field(
        default=None,
        ge=-(2**63),
        lt=2**63,
        description="Random seed. The same request and seed give the same video. Chosen at random if absent.",
    )
    recipe: RecipeChoice | None = Field(
        default=None,
        description="How the model is run. If absent, as this endpoint's model runs on fal. `published`: as the makers "
        "of the server's model run it, with their number of steps unless the request has its own. Keyreel extension.",
    )

    def request(self) -> Request:
        """Converts the input to a Request. Raises ValidationError, or RequestError for what cannot be made."""
        return Request.model_validate(self.fields() | self.conditions())

    @property
    @abstractmethod
    def frames(self) -> int:
        """The number of frames in the video."""

    def fields(self) -> dict[str, Any]:
        """Returns the fields of the Request but for the conditions. `published` leaves absent steps out."""
        shared = self.model_dump(include=set(Request.model_fields), exclude={"images", "videos"})
        return shared | {"number_of_frames": self.frames}

    def conditions(self) -> dict[str, Any]:
        """Returns pictures and clips as fields of the Request."""
        return {}

    @classmethod
    def translate_loc(cls, loc: Loc) -> Loc:
        """Returns the location in this input of the value at `loc` in its Request."""
        return tuple(cls.renamed.get(str(part), part) for part in loc)


class FromImage(Variant):
    """An input with one picture."""

    image_url: str = Field(description="URL or data URI of the picture that the video starts with.")

    def conditions(self) -> dict[str, Any]:
        return {"images": [{"image_url": self.image_url}]}

    @classmethod
    def translate_loc(cls, loc: Loc) -> Loc:
        return ("image_url",) if loc[:1] == ("images",) else super().translate_loc(loc)


class FromClip(Variant):
    """An input with a clip that goes on."""

    video: ExtendVideoConditioningInput = Field(description="The clip to extend.")

    def conditions(self) -> dict[str, Any]:
        return {"videos": [self.video.extension(self.frames)]}

    @classmethod
    def translate_loc(cls, loc: Loc) -> Loc:
        translated = super().translate_loc(loc)
        return ("video", *translated[2:]) if loc[:1] == ("videos",) else translated


class FromConditions(Variant):
    """An input with any number of pictures and clips."""

    images: tuple[ImageConditioningInput, ...] = Field(default=(), description="Pictures pinned to frames.")
    videos: tuple[VideoConditioningInput, ...] = Field(default=(), description="Clips pinned to frames.")

    def conditions(self) -> dict[str, Any]:
        return {
            "images": [image.condition() for image in self.images],
            "videos": [video.condition() for video in self.videos],
        }


class SinglePassInput(Variant):
    """The fields of the endpoints of the 2B models, whose videos have a fixed length."""

    renamed: ClassVar[Mapping[str, str]] = {**Variant.renamed, "number_of_steps": "num_inference_steps"}

    num_inference_steps: int

    @property
    def frames(self) -> int:
        return FIXED_FRAMES

    def fields(self) -> dict[str, Any]:
        left_out = self.recipe == "published" and "num_inference_steps" not in self.model_fields_set
        steps = {} if left_out else {"number_of_steps": self.num_inference_steps}
        return super().fields() | {"frame_rate": FIXED_RATE} | steps


class PreviewInput(SinglePassInput):
    """The input of `fal-ai/ltx-video`."""

    aspect_ratio: ClassVar[AspectRatio] = "16:9"

    negative_prompt: str = Field(default=PREVIEW_NEGATIVE_PROMPT, description="What the video should not show.")
    num_inference_steps: int = Field(default=30, ge=1, le=50, description="Denoising steps.")
    guidance_scale: GuidanceScale = Field(
        default=3.0, description="Scale of classifier-free guidance. At 1 the negative prompt has no effect."
    )

    def fields(self) -> dict[str, Any]:
        return super().fields() | {"resolution": "480p", "aspect_ratio": self.aspect_ratio}


class PreviewImageInput(PreviewInput, FromImage):
    """The input of `fal-ai/ltx-video/image-to-video`."""

    aspect_ratio: ClassVar[AspectRatio] = "auto"


class V095Input(SinglePassInput):
    """The input of `fal-ai/ltx-video-v095` and `fal-ai/ltx-video-v097`."""

    resolution: Resolution = Field(default="720p", description="Length of the video's shorter side.")
    aspect_ratio: Literal["9:16", "16:9"] = Field(default="16:9", description="Aspect ratio of the video.")
    num_inference_steps: int = Field(default=40, ge=2, le=50, description="Denoising steps.")
    expand_prompt: bool = Field(
        default=True,
        description="Let a language model expand the prompt into a detailed description. If absent, a server without "
        "one takes the prompt as it is.",
    )


class V095ImageInput(V095Input, FromImage):
    """The input of `fal-ai/ltx-video-v095/image-to-video` and that of v097."""


class V095ConditionsInput(V095Input, FromConditions):
    """The input of `fal-ai/ltx-video-v095/multiconditioning` and that of v097."""


class V095ExtendInput(V095Input, FromClip):
    """The input of `fal-ai/ltx-video-v095/extend` and that of v097."""

    video: VideoConditioningInput = Field(description="The clip to extend.")


AnyInput = Input | Variant
