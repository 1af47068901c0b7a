"""Error responses, in the three shapes of fal's error bodies.

model error      {"detail": [{"loc": ["body", ...], "msg": ..., "type": ..., "url": ...}, ...]}
platform error   {"detail": "...", "error_type": "..."}
plain            {"detail": "..."}
"""

import json
from collections.abc import Mapping
from math import ceil
from typing import Any

import structlog
from fastapi import FastAPI, HTTPException
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from keyreel.errors import RequestError
from keyreel.fal.outcomes import PLATFORM_CODES, Failure, request_failure, status_and_body
from keyreel.files.disk import DiskLowError
from keyreel.store import STORE_ERRORS
from keyreel.store.errors import OWN_FAULTS, described
from keyreel.store.limits import KeyRevokedError
from keyreel.store.records import (
    IdempotencyError,
    KeyLimitError,
    QueueFullError,
    StorageLimitError,
    UploadTooLargeError,
)

REQUEST_ID = "x-fal-request-id"
ERROR_TYPE = "X-Fal-Error-Type"

RETRY_AFTER = "5"
"""Seconds after which a client may try again while the database is unavailable."""

_log = structlog.get_logger(__name__)


class Json(JSONResponse):
    """A JSON response in ASCII: a prompt may contain half of a surrogate pair, which UTF-8 cannot encode."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


class PlatformError(HTTPException):
    """The service refuses a request with one of fal's error types."""

    def __init__(self, message: str, error_type: str = "bad_request") -> None:
        super().__init__(PLATFORM_CODES.get(error_type, 500), message)
        self.error_type = error_type


class RequestNotFoundError(Exception):
    """The request does not exist, or the caller may not see it."""


def failure_response(failure: Failure, headers: Mapping[str, str]) -> Json:
    """Returns the response for a failed request, with `headers` added."""
    code, body = status_and_body(failure)
    return Json(body, code, _error_headers(code, failure.type) | dict(headers))


def install_handlers(app: FastAPI) -> None:
    """Makes `app` answer each of our exceptions in fal's form."""
    app.add_exception_handler(StarletteHTTPException, _http_error)
    app.add_exception_handler(RequestError, _request_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(RequestNotFoundError, _request_not_found)
    app.add_exception_handler(QueueFullError, _queue_full)
    app.add_exception_handler(KeyLimitError, _key_limit)
    app.add_exception_handler(KeyRevokedError, _key_revoked)
    app.add_exception_handler(StorageLimitError, _storage_limit)
    app.add_exception_handler(UploadTooLargeError, _upload_too_large)
    app.add_exception_handler(DiskLowError, _disk_low)
    app.add_exception_handler(IdempotencyError, _idempotency)
    for unavailable in STORE_ERRORS:
        app.add_exception_handler(unavailable, _unavailable)
    for own_fault in OWN_FAULTS:
        app.add_exception_handler(own_fault, _raise)


def _error_headers(code: int, error_type: str) -> dict[str, str]:
    headers = {ERROR_TYPE: error_type, "X-Fal-Retryable": str(code in (502, 503, 504)).lower()}
    if error_type == "request_timeout":
        # Without these headers, fal's clients retry.
        headers |= {"X-Fal-Request-Timeout-Type": "user", "X-Fal-Retryable": "false"}
    return headers | ({"x-fal-billable-units": "0"} if code == 422 else {})


async def _http_error(request: Request, error: Exception) -> Json:
    assert isinstance(error, StarletteHTTPException)  # noqa: S101
    if isinstance(error, PlatformError):
        body = {"detail": error.detail, "error_type": error.error_type}
        return Json(body, error.status_code, _error_headers(error.status_code, error.error_type))
    no_route = error.status_code == 404 and error.detail == "Not Found"
    detail = f"Path {request.url.path} not found" if no_route else error.detail
    return Json({"detail": detail}, error.status_code, error.headers)


async def _request_error(_request: Request, error: Exception) -> Json:
    assert isinstance(error, RequestError)  # noqa: S101
    return failure_response(request_failure(error), {})


async def _validation_error(_request: Request, error: Exception) -> Json:
    """A parameter or the body of one of our own routes is invalid."""
    assert isinstance(error, RequestValidationError)  # noqa: S101
    problems = [{key: item[key] for key in ("loc", "msg", "type")} for item in error.errors()]
    return Json({"detail": problems}, 422)


async def _request_not_found(_request: Request, _error: Exception) -> Json:
    return Json({"status": "NOT_FOUND"}, 404)


async def _queue_full(_request: Request, error: Exception) -> Json:
    return Json({"detail": str(error)}, 429)


async def _key_revoked(_request: Request, error: Exception) -> Json:
    return Json({"detail": str(error)}, 401)


async def _key_limit(_request: Request, error: Exception) -> Json:
    assert isinstance(error, KeyLimitError)  # noqa: S101
    wait = {} if error.retry_after is None else {"Retry-After": str(ceil(error.retry_after))}
    return Json({"detail": str(error)}, 429, wait)


async def _storage_limit(_request: Request, error: Exception) -> Json:
    """403 as for fal's locked accounts: fal's clients do not try again."""
    return Json({"detail": str(error)}, 403)


async def _upload_too_large(_request: Request, error: Exception) -> Json:
    return Json({"detail": str(error)}, 413)


async def _disk_low(_request: Request, error: Exception) -> Json:
    """507 and not 503, which fal's clients repeat at once: this lasts until somebody makes room."""
    _log.warning("disk_low")
    return Json({"detail": str(error)}, 507)


async def _idempotency(_request: Request, error: Exception) -> Json:
    return Json({"detail": str(error), "error_type": "bad_request"}, 400, _error_headers(400, "bad_request"))


async def _unavailable(_request: Request, error: Exception) -> Json:
    """The database or the object store failed. What was not committed has no effect, so the client may try again."""
    _log.error("storage unavailable", **described(error))
    message = "The server cannot read or write its data at the moment. Try again later."
    return Json({"detail": message}, 503, {"Retry-After": RETRY_AFTER})


async def _raise(_request: Request, error: Exception) -> Json:
    """A fault of this server: trying again would not help."""
    raise error
