"""`keyreel serve --model FILE` in the layout of LTX-Video 0.9.7, as fal's own client sees it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fal_client
import httpx
import pytest
from fal_client import client as hosts

from keyreel.media.mp4 import read_metadata
from tests.checkpoints import single_file, single_file_upsampler
from tests.server.live import ENDPOINT

SMALL: dict[str, Any] = {
    "prompt": "a red circle",
    "resolution": "480p",
    "aspect_ratio": "1:1",
    "number_of_frames": 9,
    "number_of_steps": 4,
    "seed": 3,
    "enable_safety_checker": False,
}
PATIENCE = 20


@pytest.fixture(scope="module")
def model(full_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shutil.copytree(full_checkpoint, tmp_path_factory.mktemp("published") / "tiny")
    single_file_upsampler(folder / "latent_upsampler", folder / "ltxv-spatial-upscaler-0.9.7.safetensors")
    return single_file(folder, folder / "ltxv-13b-0.9.7-dev.safetensors")


@pytest.fixture(scope="module")
def client(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[fal_client.SyncClient]:
    folder = tmp_path_factory.mktemp("server")
    command = [
        sys.executable,
        "-m",
        "keyreel",
        "serve",
        "--port",
        "0",
        "--data-dir",
        str(folder),
        "--model",
        str(model),
    ]
    variables = {
        "KEYREEL_CACHE_DIR": str(folder / "cache"),
        "KEYREEL_RECIPE": "multiscale",
        "KEYREEL_DISTILLED_LORA": str(model.parent / "distilled.safetensors"),
    }
    process = subprocess.Popen(
        [*command, "--device", "cpu"],
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process, pytest.MonkeyPatch.context() as patch:
        try:
            assert process.stdout
            assert process.stderr
            line = next((line for line in process.stdout if " is at " in line), "")
            assert line, process.stderr.read()
            url, _, key = line.split(" is at ")[1].strip().partition("/#key=")
            patch.setattr(hosts, "QUEUE_URL_FORMAT", f"{url}/queue/")
            patch.setattr(hosts, "RUN_URL_FORMAT", f"{url}/run/")
            client = fal_client.SyncClient(key=key)
            yield client
            client._client.close()
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0, process.stderr.read()
        finally:
            process.kill()


@pytest.mark.parametrize("asked", ["single", "stg", "multiscale", "distilled", None])
def test_each_recipe(client: fal_client.SyncClient, tmp_path: Path, asked: str | None) -> None:
    arguments = SMALL if asked is None else SMALL | {"recipe": asked}
    output = client.subscribe(ENDPOINT, arguments, interval=0.05)
    content = httpx.get(output["video"]["url"], trust_env=False).content
    (tmp_path / "video.mp4").write_bytes(content)
    facts = json.loads(read_metadata(tmp_path / "video.mp4")["comment"])
    assert facts["sampling"]["recipe"] == (asked or "multiscale")


def test_progress_tells_the_passes_apart(client: fal_client.SyncClient) -> None:
    handle = client.submit(ENDPOINT, SMALL)
    handle.get(interval=0.05)
    status = handle.status(with_logs=True)
    assert isinstance(status, fal_client.Completed)
    lines = [line["message"] for line in status.logs or ()]
    assert [line for line in lines if line.startswith(("Denoising,", "Upsampling", "Refining,"))] == [
        "Denoising, 4 steps",
        "Upsampling",
        "Refining, 2 steps",
    ]


def test_an_unknown_recipe(client: fal_client.SyncClient) -> None:
    with pytest.raises(fal_client.FalClientHTTPError) as refused:
        client.run(ENDPOINT, SMALL | {"recipe": "slow"})
    assert refused.value.response.status_code == 422
    assert refused.value.response.json()["detail"][0]["loc"] == ["body", "recipe"]
