"""The addresses that an answer names: this server's own, or fal's when the program called one of fal's hosts.

Some programs send their key to fal's hosts only, or build the next URL from the last one's host. A program that reached
fal's hosts here reaches them again.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import Depends
from starlette.requests import Request
from starlette.types import Scope

from keyreel.fal.hosts import MEDIA, QUEUE
from keyreel.files.links import Links
from keyreel.server.dependencies import services_of

_BY_FALS_HOST = "keyreel.by_fals_host"


@dataclass(frozen=True, slots=True)
class Origins:
    """`queue` is the base of a request's URLs. `links` makes the links to files. `own` is this server's address."""

    queue: str
    links: Links
    own: str

    def name(self, value: Any) -> Any:
        """Returns a part of an output with the links to this server's files as the caller's program can follow them."""
        match value:
            case dict():
                return {key: self.name(each) for key, each in value.items()}
            case list():
                return [self.name(each) for each in value]
            case str() if value.startswith(f"{self.own}/files/"):
                return self.links.base_url + value.removeprefix(self.own)
        return value


def mark(scope: Scope) -> dict[str, Any]:
    """Returns the scope of a call that named one of fal's hosts."""
    return {**scope, _BY_FALS_HOST: True}


async def origins(request: Request) -> Origins:
    """Returns the addresses for the answer to a call."""
    links = services_of(request).links
    own = links.base_url
    if request.scope.get(_BY_FALS_HOST):
        return Origins(QUEUE, replace(links, public_url=MEDIA), own)
    return Origins(f"{own}/queue", links, own)


CurrentOrigins = Annotated[Origins, Depends(origins)]
