"""LiteLLM's proxy, called as OpenAI's API for videos. The proxy alone has the key."""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

import httpx
from report import check, expect, lacks

CONFIG = """
model_list:
  - model_name: ltx
    litellm_params:
      model: fal_ai/fal-ai/ltx-video-lora/image-to-video
      api_key: os.environ/FAL_KEY
"""
PICTURE = "data:image/png;base64," + b64encode(b"a picture").decode()
made: dict[str, Any] = {}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def call(method: str, path: str, **options: Any) -> httpx.Response:
    answer = httpx.request(method, URL + path, headers=HEADERS, timeout=30, trust_env=False, **options)
    expect(answer.is_success, answer.text)
    return answer


def started() -> bool:
    try:
        return httpx.get(f"{URL}/health/liveliness", trust_env=False).is_success
    except httpx.TransportError:
        return False


def make(prompt: str) -> str:
    body = {"model": "ltx", "prompt": prompt, "input_reference": PICTURE}
    return str(call("POST", "/v1/videos", json=body).json()["id"])


def completed(video: str) -> None:
    while (status := call("GET", f"/v1/videos/{video}").json()["status"]) in ("queued", "in_progress"):
        time.sleep(0.05)
    expect(status == "completed", status)


def submit() -> None:
    made["video"] = make("a fox")


def download() -> None:
    content = call("GET", f"/v1/videos/{made['video']}/content").content
    expect(content == b"the video", content)


PORT = free_port()
KEY = f"sk-{secrets.token_hex(32)}"
HEADERS = {"Authorization": f"Bearer {KEY}"}
URL = f"http://127.0.0.1:{PORT}"
with tempfile.TemporaryDirectory() as folder:
    config = Path(folder) / "config.yaml"
    config.write_text(CONFIG)
    command = [str(Path(sys.executable).with_name("litellm")), "--config", str(config), "--host", "127.0.0.1"]
    environment = os.environ | {"LITELLM_MASTER_KEY": KEY}
    proxy = subprocess.Popen([*command, "--port", str(PORT)], stdout=sys.stderr, env=environment)
    try:
        while not started():
            expect(proxy.poll() is None, "the proxy has ended")
            time.sleep(0.1)
        lacks("result", "subscribe", "cancel", "upload")
        check("submit", submit)
        check("status", lambda: completed(made["video"]))
        check("download", download)
        check("file input", lambda: completed(make("a file")))
    finally:
        proxy.terminate()
        proxy.wait()
