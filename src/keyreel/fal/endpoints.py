"""The endpoints, under fal's names. Every input is converted to a Request, which one engine runs."""

from dataclasses import dataclass
from typing import Any

from keyreel.errors import Problem, RequestError
from keyreel.fal import two_passes, variants
from keyreel.fal.schema import Output, Request, VideoOutput, validated
from keyreel.fal.variants import AnyInput
from keyreel.video.recipes import RecipeName

OWNER = "fal-ai"


@dataclass(frozen=True, slots=True)
class Application:
    """What the endpoints of `owner/alias` have in common.

    model: what fal runs it on, in words. models: that model's names in the catalogue, if it is there.
    recipe: how fal runs it, or None where the operator of a server decides.
    """

    alias: str
    model: str
    models: tuple[str, ...] = ()
    recipe: RecipeName | None = None
    output: type[Output] | type[VideoOutput] = Output
    owner: str = OWNER

    @property
    def runs_anywhere(self) -> bool:
        """Whether the application belongs to no single model: where the operator decides how, any will do."""
        return self.recipe is None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint `owner/alias/path`. path: empty for the root endpoint of an application."""

    application: Application
    path: str
    input: type[AnyInput]

    @property
    def owner(self) -> str:
        return self.application.owner

    @property
    def alias(self) -> str:
        return self.application.alias

    @property
    def id(self) -> str:
        return "/".join(filter(None, (self.owner, self.alias, self.path)))

    @property
    def category(self) -> str:
        return FORMS[self.path][0]

    @property
    def summary(self) -> str:
        return f"{FORMS[self.path][1]}. fal runs it on {self.application.model}."

    @property
    def schema_name(self) -> str:
        """The prefix of the schemas' names, such as `LtxVideoLoraMulticonditioning`."""
        return "".join(part.capitalize() for part in f"{self.alias}-{self.path}".split("-"))

    def read(self, data: Any) -> Request:
        """Validates a decoded JSON object and returns the request. Raises RequestError with the input's field names."""
        parsed = validated(lambda: self.input.model_validate(data))
        try:
            return validated(parsed.request)
        except RequestError as error:
            raise self.translate_error(error) from None

    def write(self, output: Output) -> dict[str, Any]:
        """Returns the output with the fields that this endpoint's has."""
        return self.application.output.model_validate(output.model_dump()).model_dump()

    def translate_error(self, error: RequestError) -> RequestError:
        """Returns an error in a Request that `read` returned, translated to the locations in this endpoint's input."""
        return RequestError(
            *(
                Problem(self.input.translate_loc(problem.loc), problem.message, problem.type, problem.context)
                for problem in error.problems
            )
        )


DEV_097 = ("ltxv-13b-0.9.7-dev", "ltxv-13b-0.9.8-dev")
"""Two names of one model."""

LORA = Application("ltx-video-lora", "LTX-Video 0.9.7 13B", DEV_097)
DEV = Application("ltx-video-13b-dev", "LTX-Video 0.9.7 13B", DEV_097, "multiscale")
DISTILLED = Application(
    "ltx-video-13b-distilled", "LTX-Video 0.9.7 13B distilled", ("ltxv-13b-0.9.7-distilled",), "distilled-multiscale"
)
DISTILLED_098 = Application(
    "ltxv-13b-098-distilled", "LTX-Video 0.9.8 13B distilled", ("ltxv-13b-0.9.8-distilled",), "distilled-multiscale"
)
V095 = Application("ltx-video-v095", "LTX-Video 0.9.5", ("ltxv-2b-0.9.5",), "stg", VideoOutput)
V097 = Application("ltx-video-v097", "LTX-Video 0.9.6", ("ltxv-2b-0.9.6-dev",), "stg", VideoOutput)
PREVIEW = Application("ltx-video", "LTX-Video 0.9", (), "single", VideoOutput)

_DISTILLED_INPUTS: dict[str, type[AnyInput]] = {
    "": two_passes.DistilledTextInput,
    "image-to-video": two_passes.DistilledImageInput,
    "multiconditioning": two_passes.DistilledConditionsInput,
    "extend": two_passes.DistilledExtendInput,
}
_V095_INPUTS: dict[str, type[AnyInput]] = {
    "": variants.V095Input,
    "image-to-video": variants.V095ImageInput,
    "multiconditioning": variants.V095ConditionsInput,
    "extend": variants.V095ExtendInput,
}
FORMS = {
    "": ("text-to-video", "Generates a video from a prompt"),
    "image-to-video": ("image-to-video", "Generates a video from a prompt and a picture for its first frame"),
    "multiconditioning": (
        "video-to-video",
        "Generates a video from a prompt and from pictures and clips pinned to frames",
    ),
    "extend": ("video-to-video", "Extends a clip, forwards or backwards, as a prompt says"),
}
"""The paths: fal's category of their endpoints, and what these do."""
INPUTS: dict[Application, dict[str, type[AnyInput]]] = {
    LORA: {"multiconditioning": Request, "": variants.TextInput, "image-to-video": variants.ImageInput},
    DEV: {
        "": two_passes.DevTextInput,
        "image-to-video": two_passes.DevImageInput,
        "multiconditioning": two_passes.DevConditionsInput,
        "extend": two_passes.DevExtendInput,
    },
    DISTILLED: _DISTILLED_INPUTS,
    DISTILLED_098: _DISTILLED_INPUTS,
    V095: _V095_INPUTS,
    V097: _V095_INPUTS,
    PREVIEW: {"": variants.PreviewInput, "image-to-video": variants.PreviewImageInput},
}
ENDPOINTS = {
    endpoint.id: endpoint
    for application, inputs in INPUTS.items()
    for endpoint in (Endpoint(application, path, model) for path, model in inputs.items())
}
MULTICONDITIONING = ENDPOINTS["fal-ai/ltx-video-lora/multiconditioning"]
