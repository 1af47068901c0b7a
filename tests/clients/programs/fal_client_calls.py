"""fal's Python client, from version 0.1 to 1.0, by the calls that all versions share."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import fal_client
import httpx
from report import check, expect, lacks

ENDPOINT = "fal-ai/ltx-video-lora/image-to-video"
INPUT = {"prompt": "a fox", "image_url": "data:image/png;base64,YSBwaWN0dXJl"}
CLIENT = fal_client.SyncClient()
made: dict[str, Any] = {}


def has_logs(status: Any) -> bool:
    return any(line["message"] == "Decoding" for line in getattr(status, "logs", None) or [])


def submit() -> None:
    made["handle"] = CLIENT.submit(ENDPOINT, INPUT)
    expect(made["handle"].request_id, made)


def status() -> None:
    *_, last = made["handle"].iter_events(with_logs=True)
    expect(isinstance(last, fal_client.Completed) and has_logs(last), last)


def result() -> None:
    made["video"] = made["handle"].get()["video"]["url"]


def subscribe() -> None:
    updates: list[Any] = []
    output = fal_client.subscribe(ENDPOINT, INPUT, with_logs=True, on_queue_update=updates.append)
    expect("video" in output and has_logs(updates[-1]), [output, updates])
    output = asyncio.run(fal_client.subscribe_async(ENDPOINT, INPUT))
    expect("video" in output, output)


def cancel() -> None:
    handle = CLIENT.submit(ENDPOINT, INPUT | {"prompt": "hold"})
    handle.cancel()
    try:
        handle.get()
    except Exception as error:  # noqa: BLE001
        response = getattr(error, "response", None)
        expect("client_cancelled" in response.text if response else "cancelled" in str(error), error)
    else:
        raise ValueError("a cancelled request has an output")


def upload() -> None:
    answer = httpx.get(CLIENT.upload(b"a clip", "video/mp4"))
    expect(answer.content == b"a clip" and answer.headers["content-type"] == "video/mp4", answer)


def file_input() -> None:
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.png"
        picture.write_bytes(b"a picture")
        CLIENT.submit(ENDPOINT, {"prompt": "a file", "image_url": CLIENT.upload_file(picture)}).get()


def download() -> None:
    expect(httpx.get(made["video"]).content == b"the video", made["video"])


check("submit", submit)
check("status", status)
check("result", result)
check("subscribe", subscribe) if hasattr(fal_client, "subscribe") else lacks("subscribe")
check("upload", upload)
check("file input", file_input)
check("download", download)
# The last, because nothing runs behind a request that cannot be cancelled.
check("cancel", cancel) if hasattr(made["handle"], "cancel") else lacks("cancel")
