"""Failures in the shapes of fal's error bodies."""

import pytest

from keyreel.errors import Problem, RequestError
from keyreel.fal.outcomes import CANCELLED, START_TIMEOUT, WORKER_LOST, Failure, request_failure, status_and_body

TOO_LARGE = Problem(("images", 0, "image_url"), "The file is too large.", "file_too_large", {"max_size": 3})
BROKEN = Problem(("loras", 1, "path"), "It is broken.", "lora_load_error")


def test_request_failure_names_every_problem() -> None:
    failure = request_failure(RequestError(TOO_LARGE, BROKEN))
    assert failure.type == "file_too_large"
    assert failure.message == "images.0.image_url: The file is too large.; loras.1.path: It is broken."
    assert status_and_body(failure) == (
        422,
        {
            "detail": [
                {
                    "loc": ["body", "images", 0, "image_url"],
                    "msg": "The file is too large.",
                    "type": "file_too_large",
                    "url": "https://docs.fal.ai/errors#file_too_large",
                    "ctx": {"max_size": 3},
                },
                {
                    "loc": ["body", "loras", 1, "path"],
                    "msg": "It is broken.",
                    "type": "lora_load_error",
                    "url": "https://docs.fal.ai/errors#lora_load_error",
                },
            ]
        },
    )


@pytest.mark.parametrize(
    ("error_type", "code"),
    [("internal_server_error", 500), ("generation_timeout", 504), ("downstream_service_error", 400), ("other", 422)],
)
def test_status_codes_of_model_errors(error_type: str, code: int) -> None:
    assert status_and_body(Failure("No.", error_type, []))[0] == code


@pytest.mark.parametrize(
    ("failure", "code"),
    [(CANCELLED, 499), (START_TIMEOUT, 504), (WORKER_LOST, 503), (Failure("No.", "runner_server_error"), 500)],
)
def test_platform_errors_have_a_message_and_a_type(failure: Failure, code: int) -> None:
    assert status_and_body(failure) == (code, {"detail": failure.message, "error_type": failure.type})
