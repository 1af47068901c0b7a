"""The endpoints that this server has."""

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import HTTPException

from keyreel.endpoints import ENDPOINTS, Endpoint
from keyreel.errors import KeyreelError
from keyreel.settings import Settings


@dataclass(frozen=True, slots=True)
class Served:
    """By their ids. The first is the one that the page and the documents show."""

    by_id: Mapping[str, Endpoint]

    @classmethod
    def by(cls, settings: Settings) -> "Served":
        """Raises KeyreelError when the operator's list names one that does not exist."""
        wanted = [name.strip() for name in settings.endpoints.split(",") if name.strip()] or list(ENDPOINTS)
        if unknown := [name for name in wanted if name not in ENDPOINTS]:
            raise KeyreelError(f"KEYREEL_ENDPOINTS: there is no {unknown[0]}. Choose from {', '.join(ENDPOINTS)}.")
        return cls({name: ENDPOINTS[name] for name in wanted})

    @property
    def first(self) -> Endpoint:
        return next(iter(self.by_id.values()))

    def of_application(self, owner: str, alias: str) -> list[Endpoint]:
        return [each for each in self.by_id.values() if (each.owner, each.alias) == (owner, alias)]

    def find(self, owner: str, alias: str, path: str) -> Endpoint:
        """Answers 404 when there is no such endpoint; of a known application in the words of fal's applications."""
        name = "/".join(filter(None, (owner, alias, path)))
        if endpoint := self.by_id.get(name):
            return endpoint
        if self.of_application(owner, alias):
            raise HTTPException(404, f"Path /{path} not found")
        raise HTTPException(404, f'Application "{name}" not found. This server has {", ".join(self.by_id)}.')
