"""What people want to see at once: their own requests and, for administrators, everything that goes on."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query
from starlette.responses import Response

from keyreel.failures import failure_answer
from keyreel.links import Links
from keyreel.server.dependencies import AdminKey, CurrentKey, CurrentServices
from keyreel.server.errors import Json, RequestNotFoundError
from keyreel.store.browse import Browse, Listed
from keyreel.store.records import Failure, JsonObject, Key, State, Success

router = APIRouter(prefix="/api", tags=["operation"])

MAX_PAGE = 200
CALLS = 50

Before = Annotated[int | None, Query(description="`seq` of the last request on the page before.")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]


@router.get("/requests", summary="The key's own requests, newest first")
async def own_requests(key: CurrentKey, services: CurrentServices, limit: Limit = 60, before: Before = None) -> Json:
    listed = await Browse(services.store.database).requests(key_id=key.id, before=before, limit=limit)
    return Json([request_view(each, services.links) for each in listed])


@router.get("/requests/{request_id}", summary="One request, with what was asked for")
async def one_request(request_id: str, key: CurrentKey, services: CurrentServices) -> Json:
    return Json(request_view(await _find(Browse(services.store.database), request_id, key), services.links))


@router.get("/shared/{token}", summary="A video whose link its owner has passed on")
async def shared(token: str, services: CurrentServices) -> Json:
    """`token`: `share` of the owner's own view. Needs no key, and tells of the video alone, not of who made it."""
    request_id = services.links.open_share_token(token)
    listed = await Browse(services.store.database).request(request_id) if request_id else None
    if listed is None or not isinstance(listed.outcome, Success):
        raise RequestNotFoundError
    return Json({"output": listed.outcome.output, "created": listed.created})


@router.delete("/requests/{request_id}", summary="Forget a completed request and its video", status_code=204)
async def forget(request_id: str, key: CurrentKey, services: CurrentServices) -> Response:
    """409 while it waits or runs: cancel it first."""
    browse = Browse(services.store.database)
    await _find(browse, request_id, key)
    if not await browse.forget(request_id):
        raise HTTPException(409, "The request is not completed. Cancel it first.")
    return Response(status_code=204)


@router.get("/operate/requests", summary="Requests of all keys, newest first")
async def all_requests(_admin: AdminKey, services: CurrentServices, limit: Limit = 60, before: Before = None) -> Json:
    listed = await Browse(services.store.database).requests(before=before, limit=limit)
    return Json([request_view(each, services.links) for each in listed])


@router.get("/operate", summary="Workers, queue, storage and webhook calls")
async def overview(_admin: AdminKey, services: CurrentServices) -> Json:
    browse = Browse(services.store.database)
    depths = await services.store.requests.depths()
    return Json(
        {
            "workers": [asdict(worker) for worker in await services.store.workers.alive()],
            "queue": {state: sum(each.requests for each in depths if each.state == state) for state in _LIVE},
            "storage": asdict(await browse.usage()),
            "webhooks": [asdict(call) for call in await browse.calls(CALLS)],
        }
    )


@router.post("/operate/webhooks/{delivery_id}/retry", summary="Make a webhook call again", status_code=204)
async def call_again(delivery_id: int, _admin: AdminKey, services: CurrentServices) -> Response:
    if not await Browse(services.store.database).call_again(delivery_id):
        raise HTTPException(404, "There is no such webhook call, or it was delivered.")
    return Response(status_code=204)


_LIVE = (State.IN_QUEUE, State.IN_PROGRESS)


def request_view(listed: Listed, links: Links) -> JsonObject:
    """With the output and a token to share it or, under `problems`, the body that reading the result answers with."""
    view = {name: getattr(listed, name) for name in Listed.__slots__ if name != "outcome"}
    match listed.outcome:
        case Success(output):
            return view | {"output": output, "share": links.share_token(listed.id)}
        case Failure() as failure:
            _, body = failure_answer(failure)
            return view | {"error": failure.message, "error_type": failure.type, "problems": body["detail"]}
    return view


async def _find(browse: Browse, request_id: str, key: Key) -> Listed:
    listed = await browse.request(request_id)
    if listed is None or not (key.admin or listed.key_id == key.id):
        raise RequestNotFoundError
    return listed
