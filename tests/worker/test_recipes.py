"""Recipes from the request to the file, with the real model on the device."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from keyreel.errors import ModelError
from keyreel.media.mp4 import read_metadata
from keyreel.recipes import RecipeName
from keyreel.worker.process import CHILD
from keyreel.worker.supervisor import supervise
from tests.worker.conftest import Bench, open_bench

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def full(full_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    """A worker whose model can do everything, and does `stg` where the request says nothing."""
    async with open_bench(tmp_path_factory.mktemp("full")) as bench:
        changes = {"recipe": "stg", "distilled_lora": str(full_checkpoint / "distilled.safetensors")}
        settings = bench.context.settings.model_copy(update=changes)
        bench = replace(bench, context=replace(bench.context, settings=settings))
        async with bench.worker(model=str(full_checkpoint), child=CHILD):
            yield bench


@pytest.mark.parametrize(
    ("asked", "expected", "parts"),
    [
        (None, "stg", set()),
        ("single", "single", set()),
        ("multiscale", "multiscale", {"upsampler"}),
        ("distilled", "distilled", {"distilled_lora"}),
    ],
)
async def test_each_recipe_makes_a_video(
    full: Bench, tmp_path: Path, asked: RecipeName | None, expected: RecipeName, parts: set[str]
) -> None:
    request = await full.submit(recipe=asked)
    await full.video(request, tmp_path / "video.mp4")
    facts = json.loads(read_metadata(tmp_path / "video.mp4")["comment"])
    assert facts["sampling"]["recipe"] == expected
    assert facts["request"].get("recipe") == asked
    assert facts["model"].keys() == {"name", "sha256"} | parts
    log = " ".join(await full.log(request))
    assert ("Upsampling Refining, 1 step" in log) == (expected == "multiscale")


async def test_a_recipe_that_the_model_cannot_do(served: Bench) -> None:
    failure = await served.failure(await served.submit(recipe="multiscale"))
    assert failure.type == "feature_not_supported"
    assert failure.detail[0]["loc"] == ["body", "recipe"]
    assert "KEYREEL_UPSAMPLER" in failure.message


async def test_a_worker_whose_recipe_cannot_be_done_does_not_start(bench: Bench, checkpoint: Path) -> None:
    settings = bench.context.settings.model_copy(update={"recipe": "multiscale"})
    context = replace(bench.context, settings=settings)
    with pytest.raises(ModelError, match="Recipe multiscale needs a latent upsampler"):
        await supervise(context, model=str(checkpoint), device="cpu", stop=asyncio.Event(), child=CHILD)
