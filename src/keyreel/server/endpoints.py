"""The endpoints that this server offers, and the queue of the model that runs each."""

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import HTTPException

from keyreel.checkpoints.catalogue import catalogue_name
from keyreel.errors import KeyreelError
from keyreel.fal.endpoints import ENDPOINTS, MULTICONDITIONING, Endpoint
from keyreel.settings import Settings

DEFAULT_POOL = "default"
"""The queue of the first or only model."""
_OWN_MODELS = {name for endpoint in ENDPOINTS.values() for name in endpoint.application.models}


@dataclass(frozen=True, slots=True)
class ServedEndpoints:
    """The endpoints by id. The page and the documents show the first one.

    pools: the queue of each by its id. without_model: those that no model here may run. models: the models here.
    """

    by_id: Mapping[str, Endpoint]
    pools: Mapping[str, str]
    without_model: Mapping[str, Endpoint]
    models: tuple[str, ...]

    @classmethod
    def from_settings(cls, settings: Settings) -> "ServedEndpoints":
        """Returns the endpoints that the operator lists, or all that a model here may run.

        Raises KeyreelError for one that is listed and unknown or without a model.
        """
        listed, models = words(settings.endpoints), words(settings.models)
        if unknown := [name for name in listed if name not in ENDPOINTS]:
            known = ", ".join(ENDPOINTS)
            raise KeyreelError(f"KEYREEL_ENDPOINTS: there is no endpoint {unknown[0]}. Choose from {known}.")
        wanted = {name: ENDPOINTS[name] for name in listed or ENDPOINTS}
        found = {name: pool_for(endpoint, models, settings.substitute) for name, endpoint in wanted.items()}
        pools = {name: pool for name, pool in found.items() if pool}
        served = cls(
            {name: endpoint for name, endpoint in wanted.items() if name in pools},
            pools,
            {name: endpoint for name, endpoint in wanted.items() if name not in pools},
            models,
        )
        if missing := next(iter(served.without_model.values()), None) if listed else None:
            raise KeyreelError(f"KEYREEL_ENDPOINTS: {served.lack(missing)}")
        return served

    @property
    def of_page(self) -> Endpoint:
        """The one that the page calls. It takes pictures, clips and LoRAs on a timeline, if one here does."""
        return self.by_id.get(MULTICONDITIONING.id, self.first)

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
        if endpoint := self.without_model.get(name):
            raise HTTPException(404, f"{self.lack(endpoint)} This server has {', '.join(self.by_id)}.")
        if self.of_application(owner, alias):
            raise HTTPException(404, f"Path /{path} not found")
        raise HTTPException(404, f'Application "{name}" not found. This server has {", ".join(self.by_id)}.')

    def lack(self, endpoint: Endpoint) -> str:
        """Says which model an endpoint lacks here, and what the operator can do."""
        return (
            f"{endpoint.id} was made for {endpoint.application.model}, and the models here are "
            f"{', '.join(self.models)}. KEYREEL_SUBSTITUTE=true lets another one stand in."
        )


def pool_of(model: str, models: tuple[str, ...]) -> str:
    """Returns the queue of a model of this server or fleet. The first one has that of a server with a single model.

    models: all of them; none where nobody listed them. Raises KeyreelError if the model is not one of them.
    """
    if models and model not in models:
        raise KeyreelError(f"KEYREEL_MODELS does not name the model {model}. It names {', '.join(models)}.")
    return model if model in models[1:] else DEFAULT_POOL


def pool_for(endpoint: Endpoint, models: tuple[str, ...], substitute: bool | None) -> str | None:
    """Returns the queue of the model that runs an endpoint, or None if none of the models may.

    substitute: whether another model than its own may; None means that a single one may, if no endpoint is its own.
    """
    for model in models:
        if catalogue_name(model) in endpoint.application.models:
            return pool_of(model, models)
    if substitute is None:
        substitute = len(models) < 2 and not any(catalogue_name(model) in _OWN_MODELS for model in models)
    return DEFAULT_POOL if substitute or endpoint.application.runs_anywhere else None


def words(text: str) -> tuple[str, ...]:
    """Returns the parts of a comma-separated setting, each once."""
    return tuple(dict.fromkeys(word for each in text.split(",") if (word := each.strip())))
