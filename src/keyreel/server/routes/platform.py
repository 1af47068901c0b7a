"""fal's platform API, as far as programs need it to find an endpoint: the list of models and their prices.

`keyreel.fal.hosts` leads `https://api.fal.ai` here. Like fal, it needs no key.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query

import keyreel
from keyreel.fal.endpoints import Endpoint
from keyreel.fal.openapi import describe
from keyreel.fal.outcomes import JsonObject
from keyreel.server.dependencies import OPEN, CurrentServices
from keyreel.server.errors import Json

router = APIRouter(prefix="/platform/v1", tags=["platform"], dependencies=[OPEN])

OPENAPI = "openapi-3.0"
_LONGEST_PAGE = 100
_INSTALLED = datetime.fromtimestamp(Path(keyreel.__file__).stat().st_mtime, UTC).isoformat()

Ids = Annotated[list[str], Query()]
Limit = Annotated[int, Query(ge=1, le=_LONGEST_PAGE)]


@router.get("/models", summary="List the endpoints, find some by their ids, or search them")
async def list_models(
    services: CurrentServices,
    endpoint_id: Ids = [],  # noqa: B006 (FastAPI copies it)
    q: str = "",
    category: str = "",
    status: str = "",
    expand: Ids = [],  # noqa: B006
    limit: Limit = _LONGEST_PAGE,
    cursor: Annotated[int, Query(ge=0)] = 0,
) -> Json:
    """Answers 404 when an id is unknown. `expand=openapi-3.0` adds each endpoint's OpenAPI document."""
    endpoints = list(services.endpoints.by_id.values())
    if unknown := sorted(set(endpoint_id) - services.endpoints.by_id.keys()):
        return _not_found(unknown)
    if endpoint_id:
        endpoints = [endpoint for endpoint in endpoints if endpoint.id in endpoint_id]
    found = [each for each in endpoints if _matches(each, q, category) and status in ("", "active")]
    page = found[cursor : cursor + limit]
    base_url = services.links.base_url
    models = [_model(endpoint, base_url, with_openapi=OPENAPI in expand) for endpoint in page]
    return Json({"models": models} | _paging(cursor + limit, len(found)))


@router.get("/models/pricing", summary="Get the prices of endpoints, which are 0")
async def list_prices(services: CurrentServices, endpoint_id: Ids = []) -> Json:  # noqa: B006
    """Answers 404 when an id is unknown."""
    if unknown := sorted(set(endpoint_id) - services.endpoints.by_id.keys()):
        return _not_found(unknown)
    prices = [_price(name) for name in services.endpoints.by_id if name in endpoint_id or not endpoint_id]
    return Json({"prices": prices} | _paging(len(prices), len(prices)))


def _matches(endpoint: Endpoint, query: str, category: str) -> bool:
    text = f"{endpoint.id} {endpoint.category} {endpoint.summary}".lower()
    return category in ("", endpoint.category) and all(word in text for word in query.lower().split())


def _model(endpoint: Endpoint, base_url: str, *, with_openapi: bool) -> JsonObject:
    metadata: JsonObject = {
        "display_name": endpoint.id.partition("/")[2],
        "category": endpoint.category,
        "description": endpoint.summary,
        "status": "active",
        "tags": [],
        "updated_at": _INSTALLED,
        "is_favorited": None,
        "thumbnail_url": "",
        "model_url": f"{base_url}/run/{endpoint.id}",
    }
    openapi = {"openapi": describe(endpoint, base_url)} if with_openapi else {}
    return {"endpoint_id": endpoint.id, "metadata": metadata} | openapi


def _price(endpoint_id: str) -> JsonObject:
    return {"endpoint_id": endpoint_id, "unit_price": 0, "unit": "videos", "currency": "USD"}


def _paging(end: int, total: int) -> JsonObject:
    return {"next_cursor": str(end) if end < total else None, "has_more": end < total}


def _not_found(ids: list[str]) -> Json:
    message = f"Not found on this server: {', '.join(ids)}."
    return Json({"error": {"type": "not_found", "message": message}}, 404)
