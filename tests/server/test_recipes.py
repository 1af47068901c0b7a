"""Recipes, sibling endpoints and LoRAs with a model file in the layout of LTX-Video 0.9.7, as fal's clients see them.

The server is `keyreel serve --model FILE` with a tiny model.
"""

import base64
import io
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from keyreel.media.mp4 import read_metadata
from tests.js import JS, environment, install
from tests.server.live import ENDPOINT
from tests.server.served import Served, download, served
from tests.spellings import SPELLINGS
from tests.tiny_checkpoints import single_file, single_file_upsampler

COMMON: dict[str, Any] = {
    "prompt": "a red circle",
    "resolution": "480p",
    "aspect_ratio": "1:1",
    "seed": 3,
    "enable_safety_checker": False,
}
SMALL = COMMON | {"number_of_frames": 9, "number_of_steps": 4}
SMALL_PASSES = COMMON | {
    "num_frames": 9,
    "first_pass_num_inference_steps": 3,
    "second_pass_num_inference_steps": 4,
    "second_pass_skip_initial_steps": 2,
}
LAYERS = {
    "proj_in": (32, 16),
    "time_embed.linear": (192, 32),
    "transformer_blocks.0.attn1.to_q": (32, 32),
    "transformer_blocks.1.ff.net.2": (32, 128),
}

pytestmark = pytest.mark.slow


def data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def picture() -> str:
    content = io.BytesIO()
    Image.new("RGB", (96, 96), "green").save(content, "PNG")
    return data_uri(content.getvalue(), "image/png")


SIBLINGS = [
    ("fal-ai/ltx-video-lora", SMALL, "multiscale"),
    ("fal-ai/ltx-video-lora/image-to-video", SMALL | {"image_url": picture()}, "multiscale"),
    (
        "fal-ai/ltx-video-13b-dev/multiconditioning",
        SMALL_PASSES | {"images": [{"image_url": picture(), "start_frame_num": 8}]},
        "multiscale",
    ),
    ("fal-ai/ltx-video-13b-distilled/multiconditioning", SMALL_PASSES, "distilled-multiscale"),
    ("fal-ai/ltxv-13b-098-distilled", SMALL_PASSES, "distilled-multiscale"),
]


@pytest.fixture(scope="module")
def model(full_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shutil.copytree(full_checkpoint, tmp_path_factory.mktemp("published") / "tiny")
    single_file_upsampler(folder / "latent_upsampler", folder / "ltxv-spatial-upscaler-0.9.7.safetensors")
    return single_file(folder, folder / "ltxv-13b-0.9.7-dev.safetensors")


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    lora = str(model.parent / "distilled.safetensors")
    with served(
        model, tmp_path_factory.mktemp("server"), recipe="multiscale", distilled_lora=lora, substitute="true"
    ) as server:
        yield server


def metadata(video: bytes, folder: Path) -> dict[str, Any]:
    """Returns the video's metadata. Checks that all frames can be decoded."""
    path = folder / "video.mp4"
    path.write_bytes(video)
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 9
    comment: dict[str, Any] = json.loads(read_metadata(path)["comment"])
    return comment


@pytest.mark.parametrize("recipe", ["single", "stg", "multiscale", "distilled", "distilled-multiscale", None])
def test_each_recipe_makes_a_video(server: Served, tmp_path: Path, recipe: str | None) -> None:
    arguments = SMALL if recipe is None else SMALL | {"recipe": recipe}
    comment = metadata(server.video(ENDPOINT, arguments), tmp_path)
    assert comment["sampling"]["recipe"] == (recipe or "multiscale")


def test_the_log_names_each_pass(server: Served) -> None:
    lines = server.log(ENDPOINT, SMALL)
    stages = [line for line in lines if line.startswith(("Denoising,", "Upsampling", "Refining,"))]
    assert [line for line in stages if ", step " not in line] == [
        "Denoising, 4 steps",
        "Upsampling",
        "Refining, 2 steps",
    ]


def test_an_unknown_recipe_is_refused(server: Served) -> None:
    status, problems = server.refusal(ENDPOINT, SMALL | {"recipe": "slow"})
    assert (status, problems[0]["loc"]) == (422, ["body", "recipe"])


@pytest.mark.parametrize(("endpoint", "arguments", "recipe"), SIBLINGS, ids=[name for name, *_ in SIBLINGS])
def test_each_sibling_endpoint_makes_a_video(
    server: Served, tmp_path: Path, endpoint: str, arguments: dict[str, Any], recipe: str
) -> None:
    output = server.make(endpoint, arguments)
    assert (output["prompt"], output["seed"]) == ("a red circle", 3)
    comment = metadata(download(output), tmp_path)
    assert comment["sampling"]["recipe"] == recipe
    assert len(comment["inputs"]) == str(arguments).count("image_url")


def test_a_sibling_makes_the_requested_steps(server: Served) -> None:
    lines = server.log("fal-ai/ltx-video-13b-dev/multiconditioning", SMALL_PASSES | {"first_pass_skip_final_steps": 1})
    assert {"Denoising, 2 steps", "Refining, 2 steps"} <= set(lines)


def test_an_error_of_a_sibling_names_its_own_fields(server: Served) -> None:
    dev, image = "fal-ai/ltx-video-13b-dev/multiconditioning", "fal-ai/ltx-video-lora/image-to-video"
    late = SMALL_PASSES | {"images": [{"image_url": picture(), "start_frame_num": 9}]}
    status, problems = server.refusal(dev, late)
    assert (status, problems[0]["loc"]) == (422, ["body", "images", 0, "start_frame_num"])
    status, problems = server.refusal(image, SMALL | {"image_url": data_uri(b"no picture", "image/png")})
    assert (status, problems[0]["loc"]) == (422, ["body", "image_url"])


def test_every_spelling_of_a_lora_makes_the_same_video(server: Served) -> None:
    noise = torch.Generator().manual_seed(1)
    factors = {
        path: (torch.randn(4, inputs, generator=noise) / 2, torch.randn(outputs, 4, generator=noise) / 2)
        for path, (outputs, inputs) in LAYERS.items()
    }
    plain = SMALL | {"recipe": "single", "number_of_steps": 2}
    videos = {}
    for spelling, spell in SPELLINGS.items():
        path = data_uri(save(spell(factors)), "application/octet-stream")
        videos[spelling] = frames(server.video(ENDPOINT, plain | {"loras": [{"path": path, "scale": 0.7}]}))
    assert set(videos.values()) == {videos["diffusers"]}
    assert frames(server.video(ENDPOINT, plain)) != videos["diffusers"]


def frames(video: bytes) -> bytes:
    """Returns the decoded frames. The files differ: each contains the hash of its LoRA."""
    with av.open(io.BytesIO(video), mode="r") as container:
        return b"".join(frame.to_ndarray().tobytes() for frame in container.decode(video=0))


def test_fals_javascript_client_gets_videos(server: Served) -> None:
    install()
    calls = [{"way": "subscribe", "inputs": [SMALL | {"recipe": recipe} for recipe in ("single", "distilled")]}]
    calls += [{"way": "subscribe", "endpoint": name, "inputs": [arguments]} for name, arguments, _ in SIBLINGS]
    for call in calls:
        command = ["node", "scenarios.mjs", "proxy", "outcomes", json.dumps(call)]
        variables = environment(KEYREEL_URL=server.url, FAL_KEY=server.key)
        program = subprocess.run(command, cwd=JS, env=variables, capture_output=True, text=True, check=True)
        outcomes = [json.loads(line) for line in program.stdout.splitlines()]
        assert [outcome["result"]["data"]["seed"] for outcome in outcomes] == [3] * len(call["inputs"])
