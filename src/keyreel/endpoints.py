"""Which endpoints there are, under the names that fal gives them. All inputs become Requests, for one engine."""

from dataclasses import dataclass
from typing import Any

from keyreel.errors import Problem, RequestError
from keyreel.schema import Request, validated
from keyreel.variants import AnyInput, DevInput, DistilledInput, ImageInput, TextInput


@dataclass(frozen=True, slots=True)
class Endpoint:
    """path: empty where the application itself is the endpoint."""

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
        """`LtxVideoLoraMulticonditioning`"""
        return "".join(part.capitalize() for part in f"{self.alias}-{self.path}".split("-"))

    def read(self, data: Any) -> Request:
        """The request that a decoded JSON object is. Raises RequestError in the endpoint's own words."""
        given = validated(lambda: self.input.model_validate(data))
        try:
            return validated(given.request)
        except RequestError as error:
            raise self.blame(error) from None

    def blame(self, error: RequestError) -> RequestError:
        """An error in a request that was read here, at the place of the input where it comes from."""
        return RequestError(
            *(
                Problem(self.input.place(problem.loc), problem.message, problem.type, problem.context)
                for problem in error.problems
            )
        )


MULTICONDITIONING = Endpoint(
    "fal-ai",
    "ltx-video-lora",
    "multiconditioning",
    category="video-to-video",
    summary="Makes a video from a prompt, pictures and clips pinned to frames, and LoRAs.",
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
            summary="Makes a video from a prompt and LoRAs.",
            input=TextInput,
        ),
        Endpoint(
            "fal-ai",
            "ltx-video-lora",
            "image-to-video",
            category="image-to-video",
            summary="Makes a video from a prompt, its first picture and LoRAs.",
            input=ImageInput,
        ),
        Endpoint(
            "fal-ai",
            "ltx-video-13b-dev",
            "multiconditioning",
            category="video-to-video",
            summary="Makes a video in two passes from a prompt, pictures and clips pinned to frames, and LoRAs.",
            input=DevInput,
        ),
        Endpoint(
            "fal-ai",
            "ltx-video-13b-distilled",
            "multiconditioning",
            category="video-to-video",
            summary="The same in few steps, with a distilled model.",
            input=DistilledInput,
        ),
    )
}
