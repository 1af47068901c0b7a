"""Every error that a client can get: its type, its HTTP status, its cause and what to do about it.

`keyreel.fal.outcomes` takes the status codes from here, docs/reference/errors.md the rest. A test compares the tables
with the types that the code raises.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorType:
    """status: the HTTP status code. cause, remedy: sentences for the client's programmer.

    raised: False for a type of fal's that Keyreel never sends and only knows the status of.
    """

    status: int
    cause: str
    remedy: str = ""
    raised: bool = True


MODEL_ERRORS: Mapping[str, ErrorType] = {
    "content_policy_violation": ErrorType(
        422,
        "A safety checker found content that the operator refuses, in the prompt, a picture, a clip or the finished "
        "video. `ctx.label` names it.",
        "Change the prompt or the input that `loc` names.",
    ),
    "feature_not_supported": ErrorType(
        422,
        "The request needs something that this server or its model does not have: a recipe, prompt expansion, or "
        "clips of another type than `rgb`.",
        "Leave the field out, or ask the operator to configure what the message names.",
    ),
    "file_decode_error": ErrorType(
        422,
        "Decoding the pictures and clips takes more memory or time than allowed, or crashes the decoder.",
        "Send smaller files, or convert them to another format.",
    ),
    "file_download_error": ErrorType(
        422,
        "A picture, clip or LoRA cannot be fetched: the URL or data URI is not valid, the host does not answer or its "
        "address is not allowed, the file is empty, or an uploaded file is gone.",
        "Check that the URL can be read without a login, or upload the file.",
    ),
    "file_too_large": ErrorType(
        422,
        "A picture, clip or LoRA is larger than the server allows: `ctx.max_size`, in bytes.",
        "Send a smaller file.",
    ),
    "image_load_error": ErrorType(422, "A picture is damaged or incomplete.", "Save it again, and send it again."),
    "image_too_large": ErrorType(
        422,
        "A picture, or a frame of a clip, has more pixels than the server allows: `ctx.max_pixels`.",
        "Scale it down.",
    ),
    "json_invalid": ErrorType(
        422, "The body is not JSON, or holds Infinity, NaN or a number that is too large.", "Correct the body."
    ),
    "greater_than_equal": ErrorType(
        422,
        "A number is smaller than `ctx.ge`. For the number of frames: nothing new would follow the clip.",
        "Use a larger number.",
    ),
    "less_than_equal": ErrorType(
        422,
        "A number is larger than `ctx.le`. For `start_frame_number`: the frame is not in the video.",
        "Use a smaller number, or ask for more frames.",
    ),
    "lora_load_error": ErrorType(
        422,
        "A LoRA is not a complete safetensors file, was made for another model, holds another kind of adapter, or "
        "holds infinities or NaNs.",
        "Use a plain LoRA for this model; the message says what does not fit.",
    ),
    "model_attributes_type": ErrorType(422, "The body is JSON, but not an object.", "Send an object."),
    "model_type": ErrorType(
        422,
        "A field, or an item of a list, must be an object and is not.",
        "Send an object with the fields of the type.",
    ),
    "multiple_of": ErrorType(
        422,
        "A clip starts at a frame that is not a multiple of `ctx.multiple_of`.",
        "Start it at one of the two frames that the message names.",
    ),
    "one_of": ErrorType(
        422,
        "A repository or folder holds several LoRAs, or none with the name in `weight_name`. `ctx.expected` lists "
        "its files.",
        "Set `weight_name` to one of them.",
    ),
    "overlap": ErrorType(
        422,
        "Two pictures or clips fix the same frames: `ctx.first_frame` to `ctx.last_frame`. `ctx.other` names the "
        "other one.",
        "Move or shorten one of them.",
    ),
    "too_many_tokens": ErrorType(
        422,
        "The video and its conditions need more latent cells than the server allows: `ctx.tokens`, with a limit of "
        "`ctx.max_tokens`.",
        "Use fewer frames, a lower resolution or fewer pictures and clips.",
    ),
    "unsupported_image_format": ErrorType(
        422, "A file is not a picture in a supported format. `ctx.supported_formats` lists them.", "Convert it."
    ),
    "unsupported_video_format": ErrorType(
        422, "A file is not a clip in a supported format. `ctx.supported_formats` lists them.", "Convert it."
    ),
    "video_duration_too_long": ErrorType(
        422, "A clip is longer than the server allows: `ctx.max_duration`, in seconds.", "Cut it."
    ),
    "video_duration_too_short": ErrorType(
        422,
        "A clip has fewer than `ctx.min_frames` frames, or fewer of them fit into the video.",
        "Start the clip earlier, or pin a frame of it as a picture.",
    ),
    "video_load_error": ErrorType(
        422, "A clip is damaged or incomplete, or cannot be decoded.", "Convert it, and send it again."
    ),
    "internal_server_error": ErrorType(500, "The model failed.", raised=False),
    "generation_timeout": ErrorType(504, "The model took too long.", raised=False),
    "downstream_service_error": ErrorType(400, "A service that the model uses refused the request.", raised=False),
    "downstream_service_unavailable": ErrorType(500, "A service that the model uses did not answer.", raised=False),
}
"""The request is at fault. Besides these types pydantic's own occur, with status 422."""

PLATFORM_ERRORS: Mapping[str, ErrorType] = {
    "bad_request": ErrorType(
        400,
        "A header or a query parameter is not valid: the webhook's URL, the queue length, the start timeout or the "
        "object lifecycle. Or the idempotency key was used for another request.",
        "Correct what the message names.",
    ),
    "client_cancelled": ErrorType(499, "The request was cancelled."),
    "client_disconnected": ErrorType(
        499, "The client of a synchronous run closed the connection; the request was cancelled.", "Use the queue."
    ),
    "request_timeout": ErrorType(
        504,
        "The request did not get a device within the start timeout that the client set.",
        "Submit it again with a longer timeout, or without one.",
    ),
    "runner_disconnected": ErrorType(
        503, "The worker that ran the last attempt stopped answering.", "Submit it again."
    ),
    "runner_server_error": ErrorType(
        500,
        "The last attempt failed for a reason that is not in the request, such as too little memory on the device.",
        "Submit it again. If it fails again, ask the operator: the request's log has the reason.",
    ),
    "startup_timeout": ErrorType(504, "No runner started in time.", raised=False),
    "runner_scheduling_failure": ErrorType(503, "No runner was free.", raised=False),
    "runner_connection_timeout": ErrorType(503, "The connection to the runner took too long.", raised=False),
    "runner_connection_refused": ErrorType(503, "The runner refused the connection.", raised=False),
    "runner_connection_error": ErrorType(503, "The connection to the runner failed.", raised=False),
    "runner_incomplete_response": ErrorType(502, "The runner's answer ended too early.", raised=False),
}
"""The service did not run the request, or not to its end."""

PLAIN_ERRORS: Mapping[int, ErrorType] = {
    each.status: each
    for each in (
        ErrorType(
            400,
            "The result was read before the request was completed; an upload broke off or one of its parts is "
            "missing; or the target of the proxy route is not one of fal's hosts.",
            "Wait until the status is `COMPLETED`, or upload again.",
        ),
        ErrorType(
            401,
            "There is no key, or it is not valid, was revoked or has expired.",
            "Send `Authorization: Key <id>:<secret>`.",
        ),
        ErrorType(
            403,
            "The key lacks the scope that `detail` names; the link does not permit this; or the key stores as many "
            "bytes as it may.",
            "Use a key with that scope, the owner's or an administrator's key, or delete videos.",
        ),
        ErrorType(404, "There is no such path, endpoint, request or file, or the request belongs to another key."),
        ErrorType(405, "This path has no such method.", "Use the method that the answer names."),
        ErrorType(409, "A request that is waiting or running cannot be deleted.", "Cancel it first."),
        ErrorType(410, "The file has expired."),
        ErrorType(
            413,
            "The body or the upload is larger than the server allows, or than the key may upload in a day.",
            "Upload files and send their URLs.",
        ),
        ErrorType(415, "The body is encoded, with gzip or otherwise.", "Send it as it is."),
        ErrorType(416, "The requested range is not in the file."),
        ErrorType(
            422, "A parameter or the body of one of Keyreel's own routes is not valid.", "Correct what `loc` names."
        ),
        ErrorType(
            429,
            "More requests are waiting than the client allows, or the key has as many requests as it may have, or has "
            "submitted as many in a minute, or has uploaded as many bytes in a day.",
            "Try again later, at the earliest after the seconds in `Retry-After`, if it is there.",
        ),
        ErrorType(500, "The server failed unexpectedly.", "Report it, with the server's log."),
        ErrorType(
            503,
            "The database or the object store does not answer, or (`/health/ready`) no model is loaded.",
            "Try again later.",
        ),
        ErrorType(
            507,
            "The server's disk is almost full (`KEYREEL_MIN_FREE_BYTES`): it takes no uploads and no new requests.",
            "Delete requests with their videos, or ask the operator for room.",
        ),
    )
}
"""Answers without an error type, by status."""
