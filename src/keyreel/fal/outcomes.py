"""How a request ends, and how fal words a failure: in a result, in a synchronous run and in a webhook."""

from dataclasses import dataclass
from typing import Any

from keyreel.errors import Problem, RequestError
from keyreel.fal.error_types import MODEL_ERRORS, PLATFORM_ERRORS

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Success:
    output: JsonObject


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no output.

    message: a sentence. type: fal's name for the error. detail: the list of problems of a model error.
    """

    message: str
    type: str
    detail: Any = None


Outcome = Success | Failure

CANCELLED = Failure("The request was cancelled.", "client_cancelled")
START_TIMEOUT = Failure("The request did not start in the time it was given.", "request_timeout")
WORKER_LOST = Failure("The workers that ran this request stopped answering.", "runner_disconnected")

MODEL_CODES = {name: error.status for name, error in MODEL_ERRORS.items()}
"""HTTP status codes of model errors. All other types, such as pydantic's, have 422."""
PLATFORM_CODES = {name: error.status for name, error in PLATFORM_ERRORS.items()}
"""HTTP status codes of platform errors. All other types have 500."""


def request_failure(error: RequestError) -> Failure:
    """The failure that the client of a wrong request sees. It leaves out `input`, which may be a whole picture."""
    return Failure(str(error), error.problems[0].type, [problem_detail(problem) for problem in error.problems])


def problem_detail(problem: Problem) -> JsonObject:
    detail: JsonObject = {
        "loc": ["body", *problem.loc],
        "msg": problem.message,
        "type": problem.type,
        "url": f"https://docs.fal.ai/errors#{problem.type}",
    }
    return detail | ({"ctx": dict(problem.context)} if problem.context else {})


def status_and_body(failure: Failure) -> tuple[int, JsonObject]:
    """HTTP status code and body of a failed request.

    A model error carries its list of problems as `detail`, a platform error a sentence.
    """
    if isinstance(failure.detail, list):
        return MODEL_CODES.get(failure.type, 422), {"detail": failure.detail}
    return PLATFORM_CODES.get(failure.type, 500), {"detail": failure.message, "error_type": failure.type}
