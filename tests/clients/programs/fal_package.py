"""The `fal` package, with which apps for fal are written. They call each other with `fal.apps`."""

import time
from typing import Any

import fal.apps
import httpx
from fal.toolkit import File
from report import check, expect

APP = "fal-ai/ltx-video-lora"
INPUT = {"prompt": "a fox", "image_url": "data:image/png;base64,YSBwaWN0dXJl"}
made: dict[str, Any] = {}


def submitted(prompt: str, picture: str) -> fal.apps.RequestHandle:
    return fal.apps.submit(APP, {"prompt": prompt, "image_url": picture}, path="/image-to-video")


def completed(handle: fal.apps.RequestHandle) -> fal.apps.Completed:
    while not isinstance(status := handle.status(logs=True), fal.apps.Completed):
        time.sleep(0.05)
    return status


def submit() -> None:
    made["handle"] = submitted("a fox", INPUT["image_url"])


def status() -> None:
    last = completed(made["handle"])
    expect(any(line["message"] == "Decoding" for line in last.logs or []), last)


def result() -> None:
    made["video"] = made["handle"].get()["video"]["url"]


def subscribe() -> None:
    expect("video" in fal.apps.run(APP, INPUT, path="/image-to-video"), APP)


def cancel() -> None:
    handle = submitted("hold", INPUT["image_url"])
    handle.cancel()
    last = completed(handle)
    expect(last.error_type == "client_cancelled", last)


def upload() -> None:
    made["picture"] = File.from_bytes(b"a picture", "image/png").url
    expect(httpx.get(made["picture"]).content == b"a picture", made["picture"])


def file_input() -> None:
    submitted("a file", made["picture"]).get()


def download() -> None:
    expect(httpx.get(made["video"]).content == b"the video", made["video"])


check("submit", submit)
check("status", status)
check("result", result)
check("subscribe", subscribe)
check("upload", upload)
check("file input", file_input)
check("download", download)
# The last, because nothing runs behind a request that cannot be cancelled.
check("cancel", cancel)
