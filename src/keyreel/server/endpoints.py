"""The endpoints that this server offers."""

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import HTTPException

from keyreel.errors import KeyreelError
from keyreel.fal.endpoints import ENDPOINTS, Endpoint
from keyreel.settings import Settings


@dataclass(frozen=True, slots=True)
class ServedEndpoints:
    """The endpoints by id. The page and the documents show the first one."""

    by_id: Mapping[str, Endpoint]

    @classmethod
    def from_settings(cls, settings: Settings) -> "ServedEndpoints":
        """Returns the endpoints that the operator lists, or all. Raises KeyreelError for an unknown one."""
        wanted = [name.strip() for name in settings.endpoints.split(",") if name.strip()] or list(ENDPOINTS)
        if unknown := [name for name in wanted if name not in ENDPOINTS]:
            known = ", ".join(ENDPOINTS)
            raise KeyreelError(f"KEYREEL_ENDPOINTS: there is no endpoint {unknown[0]}. Choose from {known}.")
        return cls({name: ENDPOINTS[name] for name in wanted})

    @property
    def first(self) -> Endpoint:
        return next(iter(self.by_id.values()))

    def of_application(self, owner: str, alias: str) -> list[Endpoint]:
        return [each for each in self.by_id.values() if (each.owner, each.alias) == (owner, alias)]

    def find(self, owner: str, alias: str, path: str) -> Endpoint:
        """Returns the endpoint. Answers 404 when there is none; for a known application, in fal's words."""
        name = "/".join(filter(None, (owner, alias, path)))
        if endpoint := self.by_id.get(name):
            return endpoint
        if self.of_application(owner, alias):
            raise HTTPException(404, f"Path /{path} not found")
        raise HTTPException(404, f'Application "{name}" not found. This server has {", ".join(self.by_id)}.')
