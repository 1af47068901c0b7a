"""fal's calls that wait: the synchronous run, and the stream of its progress."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import anyio
from fastapi import APIRouter, Depends
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response

from keyreel.fal.outcomes import Failure, JsonObject, Success, status_and_body
from keyreel.server.dependencies import Caller, CurrentServices, SubmitKey, endpoint_path
from keyreel.server.errors import REQUEST_ID, Json, PlatformError
from keyreel.server.openapi import INPUT_BODY, OUTPUT, PATH
from keyreel.server.options import Options, read_body
from keyreel.server.origins import CurrentOrigins
from keyreel.server.routes.queue import follow, one_stream, result_response
from keyreel.server.submit import submit_request
from keyreel.store.records import Status, Submitted

router = APIRouter(tags=["run"])


async def submit_valid(
    request: Request, owner: str, alias: str, key: SubmitKey, services: CurrentServices
) -> Submitted:
    """Queues a request whose fields are valid. Unlike the queue, it refuses another one at once."""
    endpoint = services.endpoints.find(owner, alias, endpoint_path(request))
    options = Options.of(request)
    async with services.bodies.receive(key.id) as incoming:
        body = await read_body(request, services.settings.max_body_bytes, incoming)
        endpoint.read(body.input)
        return await submit_request(services, key, endpoint, body, options)


ValidRequest = Annotated[Submitted, Depends(submit_valid)]


async def name_request(submitted: ValidRequest, response: Response) -> None:
    """Sets the header with the request id, for a response that begins before its route runs."""
    response.headers[REQUEST_ID] = submitted.id


async def run(
    request: Request, submitted: ValidRequest, by: Caller, services: CurrentServices, origins: CurrentOrigins
) -> Json:
    """Runs a request and waits for it. Cancels it when the client disconnects: nobody else knows its id."""
    completed = asyncio.create_task(services.snapshot.completed(submitted.id))
    disconnected = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({completed, disconnected}, return_when=asyncio.FIRST_COMPLETED)
        if not completed.done():
            raise PlatformError("The client disconnected.", "client_disconnected")
        return result_response(completed.result(), origins)
    finally:
        disconnected.cancel()
        if not completed.done():
            completed.cancel()
            await services.store.queue.cancel(submitted.id, by)


async def stream(
    submitted: ValidRequest, by: Caller, services: CurrentServices, origins: CurrentOrigins
) -> AsyncIterator[ServerSentEvent]:
    """Runs a request and sends its status whenever it changes. The last event is the output, or the error.

    Cancels the request when the client disconnects.
    """
    try:
        async for status, view in follow(services, origins, submitted.id, logs="1"):
            yield ServerSentEvent(data=origins.name(_last_event(status, view)) if status.outcome else view)
    finally:
        # A client that goes away cancels this generator, too. A completed request stays as it is.
        with anyio.CancelScope(shield=True):
            await services.store.queue.cancel(submitted.id, by)


def _last_event(status: Status, view: JsonObject) -> JsonObject:
    match status.outcome:
        case Success(output):
            return output
        case Failure() as failure:
            _, body = status_and_body(failure)
            return view | body
    return view


_PATHS = (("/{owner}/{alias}", INPUT_BODY), ("/{owner}/{alias}/{path:path}", INPUT_BODY | PATH))
for _path, _extra in _PATHS:
    router.add_api_route(
        f"{_path}/stream",
        stream,
        methods=["POST"],
        response_class=EventSourceResponse,
        # First, so that a stream too many queues nothing.
        dependencies=[Depends(one_stream), Depends(name_request)],
        openapi_extra=_extra,
    )
for _path, _extra in _PATHS:
    router.add_api_route(_path, run, methods=["POST"], responses=OUTPUT, openapi_extra=_extra)
    # fal's JavaScript client can be told to send the input as the query of a GET.
    router.add_api_route(_path, run, methods=["GET"], include_in_schema=False)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
