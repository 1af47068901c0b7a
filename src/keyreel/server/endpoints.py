"""Which endpoints there are, under the names that fal gives them."""

from dataclasses import dataclass

from fastapi import HTTPException


@dataclass(frozen=True, slots=True)
class Endpoint:
    owner: str
    alias: str
    path: str
    category: str
    summary: str

    @property
    def id(self) -> str:
        return f"{self.owner}/{self.alias}/{self.path}"

    @property
    def schema_name(self) -> str:
        """`LtxVideoLoraMulticonditioning`"""
        return "".join(part.capitalize() for part in f"{self.alias}-{self.path}".split("-"))


MULTICONDITIONING = Endpoint(
    "fal-ai",
    "ltx-video-lora",
    "multiconditioning",
    category="video-to-video",
    summary="Makes a video from a prompt, pictures and clips pinned to frames, and LoRAs.",
)
ENDPOINTS = {endpoint.id: endpoint for endpoint in (MULTICONDITIONING,)}


def find_endpoint(owner: str, alias: str, path: str) -> Endpoint:
    """Answers 404 when there is no such endpoint; of a known application in the words that fal's applications use."""
    if endpoint := ENDPOINTS.get(f"{owner}/{alias}/{path}"):
        return endpoint
    if any((owner, alias) == (endpoint.owner, endpoint.alias) for endpoint in ENDPOINTS.values()):
        raise HTTPException(404, f"Path /{path} not found")
    name = "/".join(filter(None, (owner, alias, path)))
    raise HTTPException(404, f'Application "{name}" not found. This server has {", ".join(ENDPOINTS)}.')
