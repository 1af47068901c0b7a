"""fal's queue: submit, status, its stream, result, cancel."""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response

from keyreel.server.dependencies import CurrentKey, CurrentServices, Services
from keyreel.server.errors import REQUEST_ID, Json, RequestNotFoundError, failure_response
from keyreel.server.inputs import Options, read_body
from keyreel.server.submit import submit_request
from keyreel.server.views import queue_urls, status_view
from keyreel.store.records import Cancellation, Failure, JsonObject, Key, LogEntry, State, Status

router = APIRouter(tags=["queue"])

_CANCELLATIONS: dict[Cancellation, tuple[JsonObject, int]] = {
    Cancellation.REMOVED: ({"status": "OK"}, 200),
    Cancellation.REQUESTED: ({"status": "CANCELLATION_REQUESTED"}, 202),
    Cancellation.ALREADY_COMPLETED: ({"status": "ALREADY_COMPLETED"}, 400),
    Cancellation.UNKNOWN: ({"status": "NOT_FOUND"}, 404),
}


async def find_request(
    owner: str, alias: str, request_id: str, key: CurrentKey, services: CurrentServices, path: str = ""
) -> Status:
    """The caller's own request, if it belongs to the application that the URL names."""
    status = await services.snapshot.status(request_id)
    if status is None or not _may_see(key, status) or not _belongs(status, owner, alias, path):
        raise RequestNotFoundError
    return status


CurrentRequest = Annotated[Status, Depends(find_request)]


async def name_request(status: CurrentRequest, response: Response) -> None:
    """For an answer that begins before its route runs."""
    response.headers[REQUEST_ID] = status.id


async def submit(
    request: Request, owner: str, alias: str, key: CurrentKey, services: CurrentServices, path: str = ""
) -> Json:
    """Queues a request. As on fal its fields are validated when it runs, so that a webhook hears of errors, too."""
    endpoint = services.endpoints.find(owner, alias, path)
    options = Options.of(request)
    body = await read_body(request, services.settings.max_body_bytes)
    submitted = await submit_request(services, key, endpoint, body, options)
    answer = {
        "status": State.IN_QUEUE,
        "request_id": submitted.id,
        "gateway_request_id": submitted.id,
        # A submit that is repeated may have left the queue by now.
        "queue_position": submitted.position or 0,
        **queue_urls(services.links.base_url, endpoint.id, submitted.id),
    }
    return Json(answer, headers={REQUEST_ID: submitted.id})


async def read_status(status: CurrentRequest, services: CurrentServices, logs: str = "0") -> Json:
    """200 when the request is completed, however it ended, and 202 before."""
    view = status_view(services.links.base_url, status, await _lines(services, status, logs))
    return Json(view, 200 if status.state is State.COMPLETED else 202, {REQUEST_ID: status.id})


async def stream_status(
    found: CurrentRequest, services: CurrentServices, logs: str = "0"
) -> AsyncIterator[ServerSentEvent]:
    """The status whenever it changes, each time with the log lines that are new, until the request is completed."""
    shown, last = None, 0
    while True:
        changed = services.snapshot.changed
        status = await services.snapshot.status(found.id)
        if status is None:
            return
        if status != shown:
            lines = await _lines(services, status, logs, after=last)
            yield ServerSentEvent(data=status_view(services.links.base_url, status, lines))
            # A request in the queue shows none, not even those of an attempt that was given up.
            last = lines[-1].number if lines and status.state is not State.IN_QUEUE else last
            shown = status
        if status.state is State.COMPLETED:
            return
        await changed.wait()


async def read_result(status: CurrentRequest, services: CurrentServices) -> Json:
    """As the database has it: the snapshot may be a moment behind what a webhook has told already."""
    return result_response(await services.store.requests.status(status.id) or status)


async def cancel(status: CurrentRequest, services: CurrentServices) -> Json:
    cancellation = await services.store.queue.cancel(status.id)
    await services.snapshot.refresh()
    return Json(*_CANCELLATIONS[cancellation], headers={REQUEST_ID: status.id})


def result_response(status: Status) -> Json:
    """The bare output, or the request's own error, the same at each reading."""
    headers = {REQUEST_ID: status.id}
    match status.outcome:
        case None:
            return Json({"detail": "Request is still in progress"}, 400, headers)
        case Failure() as failure:
            return failure_response(failure, headers)
        case success:
            return Json(success.output, headers=headers | {"x-fal-billable-units": "0"})


def _may_see(key: Key, status: Status) -> bool:
    return key.admin or key.id == status.key_id


def _belongs(status: Status, owner: str, alias: str, path: str) -> bool:
    """Clients leave the endpoint's path out; fal's own OpenAPI document has it."""
    application = f"{owner}/{alias}"
    if path:
        return status.endpoint == f"{application}/{path}"
    return f"{status.endpoint}/".startswith(f"{application}/")


async def _lines(services: Services, status: Status, logs: str, after: int = 0) -> Sequence[LogEntry] | None:
    """`logs`: "1" from JavaScript, "true" from Python."""
    if logs.lower() not in ("1", "true"):
        return None
    return [line for line in await services.snapshot.log(status) if line.number > after]


def _add(suffix: str, route: Any, method: str, **options: Any) -> None:
    """With and without the endpoint's path in the URL."""
    for path in ("", "/{path:path}"):
        router.add_api_route(
            f"/{{owner}}/{{alias}}{path}/requests/{{request_id}}{suffix}", route, methods=[method], **options
        )


_add("/status", read_status, "GET")
_add("", read_result, "GET")
_add("/response", read_result, "GET")
_add("/cancel", cancel, "PUT")
_add(
    "/status/stream",
    stream_status,
    "GET",
    response_class=EventSourceResponse,
    dependencies=[Depends(name_request)],
)
for _path in ("/{owner}/{alias}", "/{owner}/{alias}/{path:path}"):
    router.add_api_route(_path, submit, methods=["POST"])
    # fal's JavaScript client can be told to send the input as the query of a GET.
    router.add_api_route(_path, submit, methods=["GET"], include_in_schema=False)
