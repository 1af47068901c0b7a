"""Videos that several ranks draw on the CPU, compared with those of one. Of six heads, four ranks get 2, 2, 1 and 1.

Where ranks share tokens, the numbers differ by rounding: a matrix product may sum in another order when it has fewer
rows. So latents, which are numbers of size 1, are compared within a tolerance (found: 4e-6 at most). Equal numbers of
ranks give equal bytes, and so do one rank and a rank for each forward.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed

from keyreel.checkpoints.hub import content_sha256
from keyreel.checkpoints.memory import workload
from keyreel.engine.adapters import attached
from keyreel.engine.models import Model, load_model
from keyreel.engine.pipeline import Drawing, draw, encode_conditions, order, read_adapters, run
from keyreel.engine.rank_process import LeadingGroup, RankProcess, Start, load
from keyreel.engine.ranks import TIME_LIMIT
from keyreel.errors import ModelError, RequestError
from keyreel.video.canvas import Size
from keyreel.video.events import Checkpoint, Frames, Stage, Step
from keyreel.video.job import AdapterFile, Condition, Job, Pixels, Sampling
from keyreel.video.recipes import RECIPE_DEFAULTS, RecipeSettings, recipe_of
from tests.engine.stock import result_of
from tests.tiny_checkpoints import tiny_checkpoint, tiny_lora, tiny_upsampler

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
TOLERANCE = 2e-5
PATIENCE = 60.0
"""Seconds to wait at most."""
JOB = Job("a red circle moves", "dark", Size(96, 96), frames=17, steps=4, frame_rate=25, seed=1)
"""27 tokens: two ranks get 14 and 13."""


def picture(seed: int, frames: int = 1) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (frames, 96, 96, 3), dtype=np.uint8)


def job_with(**sampling: Any) -> Job:
    return replace(JOB, sampling=Sampling(**sampling))


PINS = (Condition(picture(1), 0, 1.0), Condition(picture(2, 9), 8, 0.6))
"""With these there are 45 tokens at three noise levels."""
JOBS = {
    "guided": JOB,
    "unguided": job_with(guidance_scale=1.0),
    "pinned": replace(JOB, conditions=PINS),
    "stochastic": job_with(stochastic_sampling=True),
    "stg": job_with(recipe="stg"),
    "stg, attention skipped": job_with(recipe="stg", stg_mode="attention_skip"),
    "stg, blocks skipped": job_with(recipe="stg", stg_mode="transformer_block"),
    "two passes": replace(job_with(recipe="multiscale"), conditions=PINS, steps=10),
    "distilled": job_with(recipe="distilled"),
    "fewer tokens than ranks": replace(JOB, size=Size(32, 32), frames=1),
}
STG = tuple(name for name in JOBS if name.startswith("stg"))
A_FORWARD_EACH = {2: ("guided", "pinned", "stochastic"), 3: STG, 4: ()}
"""The jobs in all of whose steps each rank computes a forward, by the number of ranks."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    tiny_upsampler(tiny_checkpoint(folder / "tiny", heads=6) / "latent_upsampler")
    tiny_lora(folder / "distilled.safetensors", width=96)
    return folder


@pytest.fixture(scope="module")
def settings(folder: Path) -> RecipeSettings:
    return RecipeSettings(distilled_lora=str(folder / "distilled.safetensors"))


@pytest.fixture(scope="module")
def one(folder: Path, settings: RecipeSettings) -> Model:
    return load_model(str(folder / "tiny"), "cpu", folder, settings)


@pytest.fixture(scope="module")
def deaths() -> Queue[str]:
    """The messages about ranks that died."""
    return Queue()


@pytest.fixture(scope="module", params=[2, 3, 4])
def several(
    request: pytest.FixtureRequest, folder: Path, settings: RecipeSettings, deaths: Queue[str]
) -> Iterator[Model]:
    devices = ",".join(["cpu"] * request.param)
    model = load(str(folder / "tiny"), devices, folder, settings, on_death=deaths.put)
    assert isinstance(model.group, LeadingGroup)
    yield model
    model.group.close()


@pytest.fixture
def adapter(tmp_path: Path) -> AdapterFile:
    path = tiny_lora(tmp_path / "style.safetensors", width=96)
    return AdapterFile(path, path.name, content_sha256(path), 1.0, ("loras", 0, "path"))


def drawing(model: Model, job: Job) -> Drawing:
    """Returns what the ranks of the model are to draw."""
    recipe = recipe_of(job.sampling.recipe, job.steps, job.sampling.guidance_scale, distilled=False)
    texts = [model.prompts.encode(prompt) for prompt in (job.prompt, job.negative_prompt)]
    return order(model, job, recipe, texts, result_of(encode_conditions(model, job)), None)


@torch.inference_mode()
def latents(model: Model, job: Job) -> torch.Tensor:
    what = drawing(model, job)
    with attached(model.transformer, read_adapters(model, job)), model.group.drawing(lambda: what):
        return result_of(draw(model, job, what.recipe, what.texts, what.pins))


def video(model: Model, job: Job) -> Pixels:
    return np.concatenate([event.pixels for event in run(model, job) if isinstance(event, Frames)])


@pytest.mark.parametrize("name", JOBS)
def test_several_ranks_draw_what_one_draws(one: Model, several: Model, name: str) -> None:
    expected = latents(one, JOBS[name])
    torch.testing.assert_close(latents(several, JOBS[name]), expected, rtol=0, atol=TOLERANCE)


def test_ranks_with_a_forward_each_draw_the_bytes_of_one(one: Model, several: Model) -> None:
    for name in A_FORWARD_EACH[several.ranks]:
        assert torch.equal(latents(several, JOBS[name]), latents(one, JOBS[name])), name


def test_every_rank_adds_the_loras(one: Model, several: Model, adapter: AdapterFile) -> None:
    styled = replace(JOB, adapters=(adapter,))
    expected = latents(one, styled)
    torch.testing.assert_close(latents(several, styled), expected, rtol=0, atol=TOLERANCE)
    assert (expected - latents(one, JOB)).abs().max() > 100 * TOLERANCE


@pytest.mark.parametrize("name", ["pinned", "two passes"])
def test_a_video_resumed_on_as_many_ranks_has_the_same_bytes(several: Model, name: str) -> None:
    undisturbed = list(run(several, replace(JOBS[name], checkpoints=True)))
    whole = np.concatenate([event.pixels for event in undisturbed if isinstance(event, Frames)])
    checkpoints = [event for event in undisturbed if isinstance(event, Checkpoint)]
    for checkpoint in (checkpoints[1], checkpoints[-1]):
        resumed = [event.pixels for event in run(several, JOBS[name], checkpoint) if isinstance(event, Frames)]
        assert np.array_equal(np.concatenate(resumed), whole)


def test_ranks_may_follow_different_memory_plans(several: Model) -> None:
    expected = latents(several, JOB)
    several.placement.step_down(workload(JOB, several.grid, several.ranks))
    assert several.placement.is_streaming
    assert torch.equal(latents(several, JOB), expected)


def test_the_same_ranks_give_the_same_bytes(several: Model) -> None:
    assert np.array_equal(video(several, JOBS["pinned"]), video(several, JOBS["pinned"]))


@pytest.mark.parametrize("last", [Stage("denoise", 4), Step(1), Step(4)], ids=str)
def test_a_stopped_video_does_not_affect_the_next_one(several: Model, last: Stage | Step) -> None:
    expected = video(several, JOB)
    events = run(several, replace(JOB, previews=True))
    for event in events:
        if event == last:
            break
    events.close()
    assert np.array_equal(video(several, JOB), expected)


def test_a_refused_lora_does_not_affect_the_next_video(several: Model, adapter: AdapterFile, tmp_path: Path) -> None:
    path = tiny_lora(tmp_path / "wrong.safetensors", width=64)
    wrong = replace(adapter, path=path, sha256=content_sha256(path))
    with pytest.raises(RequestError):
        video(several, replace(JOB, adapters=(wrong,)))
    assert video(several, JOB).shape == (17, 96, 96, 3)


def test_no_exchange_waits_longer_than_the_time_limit(several: Model) -> None:
    assert len(several.group._connections) == (several.ranks == 4)
    for connection in (distributed.group.WORLD, *several.group._connections.values()):
        assert connection
        assert connection._get_backend(CPU).options._timeout == TIME_LIMIT


def test_a_model_says_which_devices_draw_together(several: Model) -> None:
    assert several.device_names == ",".join(["cpu"] * several.ranks)


def test_a_rank_that_cannot_load_the_model_says_why(tmp_path: Path) -> None:
    process = RankProcess(1)
    process.start_loading(Start(str(tmp_path / "nothing"), "cpu,cpu", tmp_path, RECIPE_DEFAULTS, rank=1, port=0))
    with pytest.raises(ModelError, match=r"Rank 1 could not load the model: .*nothing"):
        process.wait_until_loaded()
    process.kill()


def test_a_rank_that_ends_while_it_loads_is_reported(tmp_path: Path) -> None:
    process = RankProcess(1)
    process.popen.kill()
    process.popen.wait()
    process.start_loading(Start("demo", "cpu,cpu", tmp_path, RECIPE_DEFAULTS, rank=1, port=0))
    with pytest.raises(ModelError, match=r"Rank 1 could not load the model: Its process ended\."):
        process.wait_until_loaded()
    process.kill()


def test_nccl_does_not_wait_for_ranks_that_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: ended.append("destroyed"))
    monkeypatch.setattr(distributed.distributed_c10d, "_abort_process_group", lambda: ended.append("aborted"))
    for backend in ("gloo", "nccl"):
        monkeypatch.setattr(distributed, "get_backend", lambda found=backend: found)
        LeadingGroup([], print).close()
    assert ended == ["destroyed", "aborted"]


def test_more_ranks_than_heads_are_refused_before_they_start(folder: Path) -> None:
    with pytest.raises(ModelError, match="6 attention heads, so at most 6 devices"):
        load(str(folder / "tiny"), ",".join(["cpu"] * 7), folder, on_death=print)


@torch.inference_mode()
def test_an_error_in_a_rank_ends_its_process(several: Model, deaths: Queue[str]) -> None:
    """The last test of the module, because these ranks draw nothing afterwards."""
    assert deaths.empty()
    with several.group.drawing(lambda: replace(drawing(several, JOB), texts=[])):
        for _ in range(several.ranks - 1):
            assert deaths.get(timeout=PATIENCE).endswith("exited with status 1.")
