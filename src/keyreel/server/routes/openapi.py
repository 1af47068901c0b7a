"""Documents for programs: the endpoints in fal's form of OpenAPI, `llms.txt`, and the public key of webhooks."""

import gzip
from typing import Annotated

from fastapi import APIRouter, Header, Query
from starlette.responses import PlainTextResponse, Response

from keyreel.fal.endpoints import Endpoint
from keyreel.fal.llms import explain
from keyreel.fal.openapi import describe
from keyreel.server.dependencies import OPEN, CurrentServices, Services
from keyreel.server.errors import Json

router = APIRouter(tags=["documents"], dependencies=[OPEN])


@router.get("/api/openapi/queue/openapi.json", summary="Get the OpenAPI document of an endpoint, in fal's form")
async def queue_document(
    services: CurrentServices,
    endpoint_id: Annotated[str | None, Query()] = None,
    accept_encoding: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    document = Json(describe(_find(services, endpoint_id), services.links.base_url))
    document.headers["Vary"] = "Accept-Encoding"
    return _compressed(document) if "gzip" in accept_encoding else document


@router.get("/{owner}/{alias}/openapi.json", include_in_schema=False)
@router.get("/run/{owner}/{alias}/openapi.json", include_in_schema=False)
async def application_document(owner: str, alias: str, services: CurrentServices) -> Json:
    endpoint = next(iter(services.endpoints.of_application(owner, alias)), None)
    return Json(describe(endpoint or services.endpoints.find(owner, alias, ""), services.links.base_url))


@router.get("/llms.txt", summary="Get a description of an endpoint for AI agents", response_class=PlainTextResponse)
@router.get("/models/{endpoint_id:path}/llms.txt", include_in_schema=False)
async def llms_txt(services: CurrentServices, endpoint_id: str | None = None) -> PlainTextResponse:
    endpoint = _find(services, endpoint_id)
    return PlainTextResponse(explain(endpoint, services.links.base_url), media_type="text/markdown")


@router.get("/.well-known/jwks.json", summary="Get the public keys that verify webhooks")
async def jwks(services: CurrentServices) -> Json:
    return Json(services.signer.jwks(), headers={"Cache-Control": "public, max-age=86400"})


def _compressed(response: Response) -> Response:
    """Returns the response in gzip. The page waits for this document, which becomes a fifth as large."""
    content = gzip.compress(bytes(response.body), mtime=0)
    headers = {"Vary": response.headers["Vary"], "Content-Encoding": "gzip"}
    return Response(content, response.status_code, headers, response.media_type)


def _find(services: Services, endpoint_id: str | None) -> Endpoint:
    if endpoint_id is None:
        return services.endpoints.first
    owner, _, rest = endpoint_id.partition("/")
    alias, _, path = rest.partition("/")
    return services.endpoints.find(owner, alias, path)
