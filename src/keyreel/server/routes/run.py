"""fal's synchronous run: submits a request, waits, and answers with the output or the error."""

import asyncio

from fastapi import APIRouter
from starlette.requests import Request

from keyreel.server.dependencies import CurrentKey, CurrentServices
from keyreel.server.errors import Json, PlatformError
from keyreel.server.options import Options, read_body
from keyreel.server.routes.queue import result_response
from keyreel.server.submit import submit_request

router = APIRouter(tags=["run"])


async def run(
    request: Request, owner: str, alias: str, key: CurrentKey, services: CurrentServices, path: str = ""
) -> Json:
    """Runs a request and waits for it. Cancels it when the client disconnects: nobody else knows its id."""
    endpoint = services.endpoints.find(owner, alias, path)
    options = Options.of(request)
    body = await read_body(request, services.settings.max_body_bytes)
    endpoint.read(body.input)
    submitted = await submit_request(services, key, endpoint, body, options)
    completed = asyncio.create_task(services.snapshot.completed(submitted.id))
    disconnected = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({completed, disconnected}, return_when=asyncio.FIRST_COMPLETED)
        if not completed.done():
            raise PlatformError("The client disconnected.", "client_disconnected")
        return result_response(completed.result())
    finally:
        disconnected.cancel()
        if not completed.done():
            completed.cancel()
            await services.store.queue.cancel(submitted.id)


for _path in ("/{owner}/{alias}", "/{owner}/{alias}/{path:path}"):
    router.add_api_route(_path, run, methods=["POST"])
    # fal's JavaScript client can be told to send the input as the query of a GET.
    router.add_api_route(_path, run, methods=["GET"], include_in_schema=False)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
