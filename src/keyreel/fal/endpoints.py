"""The endpoints, under fal's names. Every input is converted to a Request, which one engine runs."""

from dataclasses import dataclass
from typing import Any

from keyreel.errors import Problem, RequestError
from keyreel.fal.schema import Request, validated
from keyreel.fal.variants import AnyInput, DevInput, DistilledInput, ImageInput, TextInput


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint `owner/alias/path`. path: empty for the root endpoint of an application."""

    owner: str
    alias: str
    path: str
    category: str
    summary: str
    input: type[AnyInput]

    @property
    def id(self) -> str:
        return "/".join(filter(None, (self.owner, self.alias, self.path)))

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

    def translate_error(self, error: RequestError) -> RequestError:
        """Returns an error in a Request that `read` returned, translated to the locations in this endpoint's input."""
        return RequestError(
            *(
                Problem(self.input.translate_loc(problem.loc), problem.message, problem.type, problem.context)
                for problem in error.problems
            )
        )


MULTICONDITIONING = Endpoint(
    "fal-ai",
    "ltx-video-lora",
    "multiconditioning",
    category="video-to-video",
    summary="Generates a video from a prompt, pictures and clips pinned to frames, and LoRAs.",
    input=Request,
)
ENDPOINTS = {
    endpoint.id: endpoint
    for endpoint in (
        MULTICONDITIONING,
        Endpoint(
            "fal-ai",
            "ltx-video-lora",
            "",
            category="text-to-video",
            summary="Generates a video from a prompt and LoRAs.",
            input=TextInput,
        ),
        Endpoint(
            "fal-ai",
            "ltx-video-lora",
            "image-to-video",
            category="image-to-video",
            summary="Generates a video from a prompt, a picture for its first frame, and LoRAs.",
            input=ImageInput,
        ),
        Endpoint(
            "fal-ai",
            "ltx-video-13b-dev",
            "multiconditioning",
            category="video-to-video",
            summary="Generates a video in two passes from a prompt, pictures and clips pinned to frames, and LoRAs.",
            input=DevInput,
        ),
        Endpoint(
            "fal-ai",
            "ltx-video-13b-distilled",
            "multiconditioning",
            category="video-to-video",
            summary="Generates a video in two passes of few steps, with a distilled model. Otherwise like "
            "fal-ai/ltx-video-13b-dev/multiconditioning.",
            input=DistilledInput,
        ),
    )
}
