"""Overviews for the page: a caller's own requests and, for administrators, the state of the server."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query
from pydantic import BaseModel, Field
from starlette.responses import Response

from keyreel.fal.outcomes import Failure, JsonObject, Success, status_and_body
from keyreel.server.dependencies import OPEN, AdminKey, Caller, CurrentServices, ReadKey, Services, SubmitKey
from keyreel.server.errors import Json, RequestNotFoundError
from keyreel.store.browse import Listed
from keyreel.store.records import Key, State

router = APIRouter(prefix="/api", tags=["operation"])

MAX_PAGE = 200
MAX_SERIAL = 2**63 - 1
"""The largest number that the database gives a row."""
CALLS = 50
"""Webhook calls in the overview."""

MAX_ORDERED = 1000

Before = Annotated[int | None, Query(ge=0, le=MAX_SERIAL, description="`seq` of the last item on the previous page.")]
DeliveryId = Annotated[int, Path(ge=0, le=MAX_SERIAL)]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]


class Order(BaseModel):
    ids: list[Annotated[str, Field(max_length=100)]] = Field(
        max_length=MAX_ORDERED, description="Ids of requests, the first to run first."
    )


@router.get("/requests", summary="List your own requests, newest first")
async def own_requests(key: ReadKey, services: CurrentServices, limit: Limit = 60, before: Before = None) -> Json:
    listed = await services.store.browse.requests(key_id=key.id, before=before, limit=limit)
    return Json([request_view(services, each) for each in listed])


@router.get("/requests/{request_id}", summary="Get a request with its input")
async def one_request(request_id: str, key: ReadKey, services: CurrentServices) -> Json:
    return Json(request_view(services, await _find(services, request_id, key)))


@router.get("/shared/{token}", summary="Get a shared video", dependencies=[OPEN])
async def shared(token: str, services: CurrentServices) -> Json:
    """Needs no key. `token` is the field `share` of the owner's view. The response does not tell who made the video."""
    request_id = services.links.open_share_token(token)
    listed = await services.store.browse.request(request_id) if request_id else None
    if listed is None or not isinstance(listed.outcome, Success):
        raise RequestNotFoundError
    return Json({"output": listed.outcome.output, "created": listed.created})


@router.put("/requests/order", summary="Put your own waiting requests into another order", status_code=204)
async def reorder(order: Order, key: SubmitKey, services: CurrentServices) -> Response:
    """They share the turns that they have, so nobody else waits for more of them. Others in the list are ignored."""
    await services.store.queue.reorder(key.id, order.ids)
    await services.snapshot.refresh()  # whoever lists them next sees the new places
    return Response(status_code=204)


@router.delete("/requests/{request_id}", summary="Delete a completed request and its video", status_code=204)
async def forget(request_id: str, key: SubmitKey, by: Caller, services: CurrentServices) -> Response:
    """Answers 409 while the request waits or runs: cancel it first."""
    await _find(services, request_id, key)
    if not await services.store.queue.forget(request_id, by):
        raise HTTPException(409, "The request is not completed. Cancel it first.")
    return Response(status_code=204)


@router.get("/operate/requests", summary="List the requests of all keys, newest first")
async def all_requests(_admin: AdminKey, services: CurrentServices, limit: Limit = 60, before: Before = None) -> Json:
    listed = await services.store.browse.requests(before=before, limit=limit)
    return Json([request_view(services, each) for each in listed])


@router.get("/operate", summary="Get the workers, the queue, the storage and the latest webhook calls")
async def overview(_admin: AdminKey, services: CurrentServices) -> Json:
    depths = await services.store.requests.depths()
    calls = await services.store.browse.calls(CALLS)
    return Json(
        {
            "workers": [asdict(worker) for worker in await services.store.workers.alive()],
            "queue": {state: sum(each.requests for each in depths if each.state == state) for state in _LIVE},
            "storage": asdict(await services.store.browse.usage()),
            "webhooks": [asdict(call) | {"url": services.webhook_urls.masked(call.url)} for call in calls],
        }
    )


@router.post("/operate/webhooks/{delivery_id}/retry", summary="Retry a webhook call", status_code=204)
async def call_again(delivery_id: DeliveryId, _admin: AdminKey, by: Caller, services: CurrentServices) -> Response:
    if not await services.store.deliveries.call_again(delivery_id, by):
        raise HTTPException(404, "There is no such webhook call, or it was already delivered.")
    return Response(status_code=204)


_LIVE = (State.IN_QUEUE, State.IN_PROGRESS)


def request_view(services: Services, listed: Listed) -> JsonObject:
    """Returns a request as JSON, with its output and a token to share it, or with its error.

    `position` is null unless the request waits, and until the snapshot knows its place in the queue. `problems` is the
    `detail` that the route of the result answers with.
    """
    view = {name: getattr(listed, name) for name in Listed.__slots__ if name != "outcome"}
    view["position"] = services.snapshot.position(listed.id) if listed.state is State.IN_QUEUE else None
    match listed.outcome:
        case Success(output):
            return view | {"output": output, "share": services.links.share_token(listed.id)}
        case Failure() as failure:
            _, body = status_and_body(failure)
            return view | {"error": failure.message, "error_type": failure.type, "problems": body["detail"]}
    return view


async def _find(services: Services, request_id: str, key: Key) -> Listed:
    listed = await services.store.browse.request(request_id)
    if listed is None or not (key.admin or listed.key_id == key.id):
        raise RequestNotFoundError
    return listed
