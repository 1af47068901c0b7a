"""The inputs of the endpoints of the 13B models, which run in two passes."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from keyreel.errors import Loc
from keyreel.fal.schema import LoRA
from keyreel.fal.variants import FULL_ASPECT_RATIOS, FromClip, FromConditions, FromImage, Variant
from keyreel.video.canvas import AspectRatio, Resolution
from keyreel.video.recipes import DEFAULT_PASSES, DISTILLED_PASSES, TwoPasses, scale_skipped

STEPS = (
    "first_pass_num_inference_steps",
    "first_pass_skip_final_steps",
    "second_pass_num_inference_steps",
    "second_pass_skip_initial_steps",
)


class TwoPassInput(Variant):
    """The fields that the endpoints of the 13B models share. default_passes: those from which absent fields follow."""

    default_passes: ClassVar[TwoPasses]
    renamed: ClassVar[Mapping[str, str]] = {
        **Variant.renamed,
        "number_of_frames": "num_frames",
        "number_of_steps": STEPS[0],
        "tone_map": "tone_map_compression_ratio",
    }
    renamed_passes: ClassVar[Mapping[str, str]] = {
        "first_steps": STEPS[0],
        "first_skip_final": STEPS[1],
        "second_steps": STEPS[2],
        "second_skip_initial": STEPS[3],
    }

    loras: tuple[LoRA, ...] = Field(default=(), description="LoRAs to apply together.")
    resolution: Resolution = Field(default="720p", description="Length of the video's shorter side.")
    aspect_ratio: AspectRatio = Field(
        default="auto", description="Aspect ratio of the video. `auto` follows the first picture or clip."
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

    @property
    def frames(self) -> int:
        return self.num_frames

    def fields(self) -> dict[str, Any]:
        left_out = self.recipe == "published" and self.model_fields_set.isdisjoint(STEPS)
        steps = {} if left_out else self._steps()
        return super().fields() | {"tone_map": self.tone_map_compression_ratio} | steps

    @classmethod
    def translate_loc(cls, loc: Loc) -> Loc:
        if loc[:1] == ("passes",):
            return (cls.renamed_passes.get(str(loc[-1]), STEPS[0]),)
        return super().translate_loc(loc)

    def _steps(self) -> dict[str, Any]:
        """Returns the steps of both passes, and those of the first for a recipe that has but one."""
        first, default = self.first_pass_num_inference_steps, self.default_passes
        skipped = self.first_pass_skip_final_steps
        passes = {
            "first_steps": first,
            "first_skip_final": scale_skipped(default.skip_final, default.first, first) if skipped is None else skipped,
            "second_steps": self.second_pass_num_inference_steps,
            "second_skip_initial": self.second_pass_skip_initial_steps,
        }
        return {"number_of_steps": first, "passes": passes}


class ConditionedInput(TwoPassInput):
    """The fields that the endpoints of the 13B models with pictures or clips share."""

    constant_rate_factor: int = Field(
        default=29,
        ge=0,
        le=51,
        description="H.264 rate factor at which pictures and clips are compressed before use. 0 leaves them unchanged.",
    )


class DevInput(TwoPassInput):
    """The steps of the endpoints of the 13B model that is not distilled."""

    default_passes = DEFAULT_PASSES

    first_pass_num_inference_steps: int = Field(default=30, ge=2, le=50, description="Steps of the first pass.")
    second_pass_num_inference_steps: int = Field(default=30, ge=2, le=50, description="Steps of the second pass.")
    second_pass_skip_initial_steps: int = Field(
        default=17, ge=0, le=49, description="Steps skipped at the start of the second pass."
    )


class DistilledInput(TwoPassInput):
    """The steps of the endpoints of the distilled 13B models."""

    default_passes = DISTILLED_PASSES

    first_pass_num_inference_steps: int = Field(default=8, ge=2, le=12, description="Steps of the first pass.")
    second_pass_num_inference_steps: int = Field(default=8, ge=2, le=12, description="Steps of the second pass.")
    second_pass_skip_initial_steps: int = Field(
        default=5, ge=1, le=11, description="Steps skipped at the start of the second pass."
    )


class DevTextInput(DevInput):
    """The input of `fal-ai/ltx-video-13b-dev`."""

    aspect_ratio: FULL_ASPECT_RATIOS = Field(default="16:9", description="Aspect ratio of the video.")


class DevImageInput(DevInput, ConditionedInput, FromImage):
    """The input of `fal-ai/ltx-video-13b-dev/image-to-video`."""


class DevConditionsInput(DevInput, ConditionedInput, FromConditions):
    """The input of `fal-ai/ltx-video-13b-dev/multiconditioning`."""


class DevExtendInput(DevInput, ConditionedInput, FromClip):
    """The input of `fal-ai/ltx-video-13b-dev/extend`."""


class DistilledTextInput(DistilledInput):
    """The input of `fal-ai/ltx-video-13b-distilled` and `fal-ai/ltxv-13b-098-distilled`."""

    aspect_ratio: FULL_ASPECT_RATIOS = Field(default="16:9", description="Aspect ratio of the video.")


class DistilledImageInput(DistilledInput, ConditionedInput, FromImage):
    """The input of `fal-ai/ltx-video-13b-distilled/image-to-video` and that of 0.9.8."""


class DistilledConditionsInput(DistilledInput, ConditionedInput, FromConditions):
    """The input of `fal-ai/ltx-video-13b-distilled/multiconditioning` and that of 0.9.8."""


class DistilledExtendInput(DistilledInput, ConditionedInput, FromClip):
    """The input of `fal-ai/ltx-video-13b-distilled/extend` and that of 0.9.8."""
