"""The routes of fal's queue: submit, status, status stream, result, cancel."""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response

from keyreel.fal.outcomes import Failure, JsonObject
from keyreel.server.dependencies import (
    OPEN,
    Caller,
    CurrentKey,
    CurrentServices,
    Needs,
    Services,
    SubmitKey,
    endpoint_path,
)
from keyreel.server.errors import REQUEST_ID, Json, RequestNotFoundError, failure_response
from keyreel.server.openapi import CANCELLED, INPUT_BODY, PATH, RESULT, STATUS, SUBMITTED
from keyreel.server.options import Options, read_body
from keyreel.server.origins import CurrentOrigins, Origins
from keyreel.server.submit import submit_request
from keyreel.server.views import queue_urls, status_view
from keyreel.store.records import Cancellation, Key, LogEntry, State, Status
from keyreel.store.scopes import Scope

router = APIRouter(tags=["queue"])

_TRUE = {"1", "1.0", "true", "yes", "on"}
_CANCELLATIONS: dict[Cancellation, tuple[JsonObject, int]] = {
    Cancellation.REMOVED: ({"status": "OK"}, 200),
    Cancellation.REQUESTED: ({"status": "CANCELLATION_REQUESTED"}, 202),
    Cancellation.ALREADY_COMPLETED: ({"status": "ALREADY_COMPLETED"}, 400),
    Cancellation.UNKNOWN: ({"status": "NOT_FOUND"}, 404),
}


async def find_request(
    request: Request, owner: str, alias: str, request_id: str, key: CurrentKey, services: CurrentServices
) -> Status:
    """Returns the request, if the caller may see it and it belongs to the application in the URL; else answers 404."""
    status = await services.snapshot.status(request_id)
    if status is None or not _may_see(key, status) or not _belongs(status, owner, alias, endpoint_path(request)):
        raise RequestNotFoundError
    return status


CurrentRequest = Annotated[Status, Depends(find_request)]


async def name_request(status: CurrentRequest, response: Response) -> None:
    """Sets the header with the request id, for a response that begins before its route runs."""
    response.headers[REQUEST_ID] = status.id


async def one_stream(key: CurrentKey, services: CurrentServices) -> AsyncIterator[None]:
    """Counts as an open stream until the response has ended."""
    with services.streams.open(key.id):
        yield


async def submit(
    request: Request,
    owner: str,
    alias: str,
    key: SubmitKey,
    services: CurrentServices,
    origins: CurrentOrigins,
) -> Json:
    """Queues a request. As on fal, its fields are validated when it runs, so that webhooks also report errors."""
    endpoint = services.endpoints.find(owner, alias, endpoint_path(request))
    options = Options.of(request)
    async with services.bodies.receive(key.id) as incoming:
        body = await read_body(request, services.settings.max_body_bytes, incoming)
        submitted = await submit_request(services, key, endpoint, body, options)
    answer = {
        "status": State.IN_QUEUE,
        "request_id": submitted.id,
        "gateway_request_id": submitted.id,
        # A repeated submit may have left the queue already.
        "queue_position": submitted.position or 0,
        **queue_urls(origins.queue, endpoint.id, submitted.id),
    }
    return Json(answer, headers={REQUEST_ID: submitted.id})


async def read_status(
    status: CurrentRequest, services: CurrentServices, origins: CurrentOrigins, logs: str = "0"
) -> Json:
    """Answers 200 when the request is completed, whether it succeeded or failed, and 202 before."""
    view = status_view(origins, status, await _lines(services, status, logs))
    return Json(view, 200 if status.state is State.COMPLETED else 202, {REQUEST_ID: status.id})


async def stream_status(
    found: CurrentRequest, services: CurrentServices, origins: CurrentOrigins, logs: str = "0"
) -> AsyncIterator[ServerSentEvent]:
    """Sends the status whenever it changes, with the new log lines, until the request is completed."""
    async for _, view in follow(services, origins, found.id, logs):
        yield ServerSentEvent(data=view)


async def follow(
    services: Services, origins: Origins, request_id: str, logs: str
) -> AsyncIterator[tuple[Status, JsonObject]]:
    """Yields the status and its view whenever it changes, until the request is completed."""
    shown, last = None, 0
    while True:
        changed = services.snapshot.changed
        status = await services.snapshot.status(request_id)
        if status is None:
            return
        if status != shown:
            lines = await _lines(services, status, logs, after=last)
            yield status, status_view(origins, status, lines)
            # The status of a queued request contains no log, so the lines of an earlier attempt are still to be sent.
            last = lines[-1].number if lines and status.state is not State.IN_QUEUE else last
            shown = status
        if status.state is State.COMPLETED:
            return
        await changed.wait()


async def read_result(status: CurrentRequest, services: CurrentServices, origins: CurrentOrigins) -> Json:
    """Returns the output or the error, from the database: while it is away, the snapshot tells what it last knew."""
    return result_response(await services.store.requests.status(status.id) or status, origins)


async def cancel(status: CurrentRequest, by: Caller, services: CurrentServices) -> Json:
    """Answers 200 when the request was still queued, 202 when it is running and will stop, 400 when it is completed."""
    cancellation = await services.store.queue.cancel(status.id, by)
    return Json(*_CANCELLATIONS[cancellation], headers={REQUEST_ID: status.id})


async def refuse_cancel() -> None:
    """Answers 405: without this route, the path would be that of a submit."""
    raise HTTPException(405, "Cancel a request with PUT.", {"Allow": "PUT"})


def result_response(status: Status, origins: Origins) -> Json:
    """Returns the output without an envelope, or the request's error. Each call gives the same response."""
    headers = {REQUEST_ID: status.id}
    match status.outcome:
        case None:
            return Json({"detail": "Request is still in progress"}, 400, headers)
        case Failure() as failure:
            return failure_response(failure, headers)
        case success:
            return Json(origins.name(success.output), headers=headers | {"x-fal-billable-units": "0"})


def _may_see(key: Key, status: Status) -> bool:
    return key.admin or key.id == status.key_id


def _belongs(status: Status, owner: str, alias: str, path: str) -> bool:
    """fal's clients omit the endpoint's path from these URLs; fal's own OpenAPI document includes it."""
    application = f"{owner}/{alias}"
    if path:
        return status.endpoint == f"{application}/{path}"
    return f"{status.endpoint}/".startswith(f"{application}/")


async def _lines(services: Services, status: Status, logs: str, after: int = 0) -> Sequence[LogEntry] | None:
    """Returns the log lines after number `after`, or None if `logs` is not true in one of the clients' spellings."""
    if logs.lower() not in _TRUE:
        return None
    return [line for line in await services.snapshot.log(status) if line.number > after]


def _add(suffix: str, route: Any, method: str, *dependencies: Any, **options: Any) -> None:
    """Adds a route with and without the endpoint's path in the URL."""
    for path in ("", "/{path:path}"):
        router.add_api_route(
            f"/{{owner}}/{{alias}}{path}/requests/{{request_id}}{suffix}",
            route,
            methods=[method],
            dependencies=dependencies,
            openapi_extra=PATH if path else None,
            **options,
        )


_READ, _SUBMIT = Depends(Needs(Scope.READ)), Depends(Needs(Scope.SUBMIT))
_add("/status", read_status, "GET", _READ, responses=STATUS)
_add("", read_result, "GET", _READ, responses=RESULT)
_add("/response", read_result, "GET", _READ, responses=RESULT)
_add("/cancel", cancel, "PUT", _SUBMIT, responses=CANCELLED)
_add("/cancel", refuse_cancel, "POST", OPEN, include_in_schema=False)
_add("/cancel", refuse_cancel, "GET", OPEN, include_in_schema=False)
_add(
    "/status/stream",
    stream_status,
    "GET",
    _READ,
    Depends(name_request),
    Depends(one_stream),
    response_class=EventSourceResponse,
)
for _path, _extra in (("/{owner}/{alias}", INPUT_BODY), ("/{owner}/{alias}/{path:path}", INPUT_BODY | PATH)):
    router.add_api_route(_path, submit, methods=["POST"], responses=SUBMITTED, openapi_extra=_extra)
    # fal's JavaScript client can be told to send the input as the query of a GET.
    router.add_api_route(_path, submit, methods=["GET"], include_in_schema=False)
