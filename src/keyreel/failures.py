"""Failures as fal words them: the same for a request's result, for a synchronous run and for a webhook."""

from typing import Any

from keyreel.errors import Problem, RequestError
from keyreel.store.records import Failure, JsonObject

# fal's codes. A model error that is not here is a 422, a platform error a 500.
MODEL_CODES = {
    "internal_server_error": 500,
    "generation_timeout": 504,
    "downstream_service_error": 400,
    "downstream_service_unavailable": 500,
}
PLATFORM_CODES = {
    "request_timeout": 504,
    "startup_timeout": 504,
    "runner_scheduling_failure": 503,
    "runner_connection_timeout": 503,
    "runner_disconnected": 503,
    "runner_connection_refused": 503,
    "runner_connection_error": 503,
    "runner_incomplete_response": 502,
    "client_disconnected": 499,
    "client_cancelled": 499,
    "bad_request": 400,
}


def failure_of(error: RequestError) -> Failure:
    """A wrong request as the failure that its client gets to see. `input` is left out: it may be a whole picture."""
    return Failure(str(error), error.problems[0].type, [problem_detail(problem) for problem in error.problems])


def problem_detail(problem: Problem) -> dict[str, Any]:
    detail: dict[str, Any] = {
        "loc": ["body", *problem.loc],
        "msg": problem.message,
        "type": problem.type,
        "url": f"https://docs.fal.ai/errors#{problem.type}",
    }
    return detail | ({"ctx": dict(problem.context)} if problem.context else {})


def failure_answer(failure: Failure) -> tuple[int, JsonObject]:
    """HTTP code and body of a failed request.

    A model error carries its list of problems as `detail`.
    """
    if isinstance(failure.detail, list):
        return MODEL_CODES.get(failure.type, 422), {"detail": failure.detail}
    return PLATFORM_CODES.get(failure.type, 500), {"detail": failure.message, "error_type": failure.type}
