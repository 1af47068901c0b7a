"""Recipes from the request to the finished file: supervisor, decode process, engine process and the real engine."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from keyreel.errors import ModelError
from keyreel.media.mp4 import read_metadata
from keyreel.video.recipes import RecipeName
from keyreel.worker.process import ENGINE_PROCESS
from keyreel.worker.supervisor import supervise
from tests.worker.conftest import Bench, open_bench

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def full_bench(full_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    """A bench with a worker whose model supports every recipe. Its default recipe is `stg`."""
    async with open_bench(tmp_path_factory.mktemp("full")) as bench:
        changes = {"recipe": "stg", "distilled_lora": str(full_checkpoint / "distilled.safetensors")}
        settings = bench.context.settings.model_copy(update=changes)
        bench = replace(bench, context=replace(bench.context, settings=settings))
        async with bench.worker(model=str(full_checkpoint), engine_process=ENGINE_PROCESS):
            yield bench


@pytest.mark.slow
@pytest.mark.parametrize(
    ("requested", "expected", "parts"),
    [
        (None, "stg", set()),
        ("single", "single", set()),
        ("multiscale", "multiscale", {"upsampler"}),
        ("distilled", "distilled", {"distilled_lora"}),
    ],
)
async def test_each_recipe_makes_a_video(
    full_bench: Bench, tmp_path: Path, requested: RecipeName | None, expected: RecipeName, parts: set[str]
) -> None:
    request = await full_bench.submit(recipe=requested)
    await full_bench.video(request, tmp_path / "video.mp4")
    facts = json.loads(read_metadata(tmp_path / "video.mp4")["comment"])
    assert facts["sampling"]["recipe"] == expected
    assert facts["request"].get("recipe") == requested
    assert facts["model"].keys() == {"name", "sha256"} | parts
    log = " ".join(await full_bench.log(request))
    assert ("Upsampling Refining, 1 step" in log) == (expected == "multiscale")


@pytest.mark.slow
async def test_a_recipe_that_the_model_does_not_support_is_refused(shared_bench: Bench) -> None:
    failure = await shared_bench.failure(await shared_bench.submit(recipe="multiscale"))
    assert failure.type == "feature_not_supported"
    assert failure.detail[0]["loc"] == ["body", "recipe"]
    assert "KEYREEL_UPSAMPLER" in failure.message


@pytest.mark.slow
async def test_a_worker_whose_default_recipe_is_not_supported_does_not_start(bench: Bench, checkpoint: Path) -> None:
    settings = bench.context.settings.model_copy(update={"recipe": "multiscale"})
    context = replace(bench.context, settings=settings)
    with pytest.raises(ModelError, match="Recipe multiscale needs a latent upsampler"):
        await supervise(
            context, model=str(checkpoint), device="cpu", stop=asyncio.Event(), engine_process=ENGINE_PROCESS
        )
