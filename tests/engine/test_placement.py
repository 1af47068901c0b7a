"""A model laid out by plans: the same bytes under each, in as little memory as each says."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import LTXVideoTransformer3DModel

from keyreel import plans
from keyreel.canvas import Size
from keyreel.engine import autoencoder, denoise, fitting, pipeline, transformer
from keyreel.engine import placement as placement_module
from keyreel.engine.models import Model, load_model
from keyreel.errors import ModelError
from keyreel.events import Event, Frames, Notice
from keyreel.job import AdapterFile, Condition, Job
from keyreel.plans import REFERENCE, Plan
from tests.checkpoints import tiny_checkpoint, tiny_lora

JOB = Job("a red star", "dark", Size(96, 64), frames=9, steps=2, frame_rate=25, seed=5)
PLANS = [Plan(text=True, blocks=2), Plan(text=False, blocks=2), Plan(text=False, blocks=1), Plan(text=False, blocks=0)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rests in bf16, is computed with in fp32."""
    return tiny_checkpoint(tmp_path_factory.mktemp("placed") / "tiny", dtype=torch.bfloat16)


@pytest.fixture
def model(folder: Path, tmp_path: Path) -> Model:
    return load_model(str(folder), "cpu", tmp_path)


def pixels(events: Iterator[Event]) -> np.ndarray:
    return np.concatenate([event.pixels for event in events if isinstance(event, Frames)])


@pytest.fixture(scope="module")
def expected(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    return pixels(pipeline.run(load_model(str(folder), "cpu", tmp_path_factory.mktemp("cache")), JOB))


@pytest.mark.parametrize("plan", PLANS)
def test_every_plan_gives_the_same_bytes(model: Model, expected: np.ndarray, plan: Plan) -> None:
    model.placement._follow(plan)
    assert np.array_equal(pixels(pipeline.run(model, JOB)), expected)


@pytest.mark.parametrize("plan", PLANS)
def test_loras_and_pictures_under_every_plan(model: Model, tmp_path: Path, plan: Plan) -> None:
    lora = tiny_lora(tmp_path / "style.safetensors")
    picture = Condition(np.full((1, 64, 96, 3), 200, np.uint8), 8, 0.8)
    job = replace(JOB, adapters=(AdapterFile(lora, lora.name, "", 1.0, ()),), conditions=(picture,))
    model.placement._follow(PLANS[0])
    resident = pixels(pipeline.run(model, job))
    model.placement._follow(plan)
    assert np.array_equal(pixels(pipeline.run(model, job)), resident)


def test_int8_is_another_video_the_same_under_every_plan(folder: Path, tmp_path: Path, expected: np.ndarray) -> None:
    model = load_model(f"{folder}+int8", "cpu", tmp_path)
    videos = []
    for plan in PLANS:
        model.placement._follow(plan)
        videos.append(pixels(pipeline.run(model, JOB)))
    assert all(np.array_equal(video, videos[0]) for video in videos)
    difference = np.abs(videos[0].astype(int) - expected.astype(int))
    assert 0 < difference.mean() < 8


class TestFit:
    """By the planner's word for what is free."""

    @pytest.fixture
    def free(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """What the device says is free, to be changed."""
        amount = [10**12]
        monkeypatch.setattr(placement_module, "memory", lambda _device: (amount[0], amount[0]))
        return amount

    def room_for(self, model: Model, plan: Plan) -> int:
        """Free beside what is held now."""
        size = model.placement.size
        return plans.needed(plan, size, REFERENCE) - plans.held(model.placement.plan, size)

    def test_plans_follow_the_memory_that_is_free(self, model: Model, free: list[int]) -> None:
        for plan in (*PLANS, *reversed(PLANS)):
            free[0] = self.room_for(model, plan)
            model.placement.fit(REFERENCE)
            assert model.placement.plan == plan

    def test_what_no_plan_has_room_for_is_tried_with_the_least(self, model: Model, free: list[int]) -> None:
        free[0] = 0
        model.placement.fit(REFERENCE)
        assert model.placement.plan == PLANS[-1]

    def test_a_model_that_cannot_even_rest_here(self, folder: Path, tmp_path: Path, free: list[int]) -> None:
        free[0] = 1000
        with pytest.raises(ModelError, match=r"takes 0.0 GiB of cpu even when all that can stream does"):
            load_model(str(folder), "cpu", tmp_path)

    def test_a_failure_is_remembered(self, model: Model, free: list[int]) -> None:
        free[0] = self.room_for(model, PLANS[0])
        model.placement.fit(REFERENCE)
        assert model.placement.step_down(REFERENCE)
        assert model.placement.plan == PLANS[1]
        free[0] = self.room_for(model, PLANS[0])
        model.placement.fit(REFERENCE)
        assert model.placement.plan == PLANS[1]

    def test_nothing_is_below_the_least(self, model: Model) -> None:
        model.placement._follow(PLANS[-1])
        assert not model.placement.step_down(REFERENCE)


class TestOutOfMemory:
    """The error comes from where the device's memory is asked for: a forward, or a frame."""

    @pytest.fixture
    def failing(self, monkeypatch: pytest.MonkeyPatch) -> list[Exception | None]:
        """What the forwards of the transformer raise, one after the other; None computes."""
        errors: list[Exception | None] = []
        real = transformer.velocities

        def velocities(*args: Any) -> Any:
            if errors and (error := errors.pop(0)):
                raise error
            return real(*args)

        monkeypatch.setattr(denoise, "velocities", velocities)
        return errors

    def test_once_more_under_the_next_plan(
        self, model: Model, expected: np.ndarray, failing: list[Exception | None]
    ) -> None:
        failing[:] = [None, torch.OutOfMemoryError("CUDA out of memory")]
        events = list(fitting.run(model, JOB))
        notices = [event.message for event in events if isinstance(event, Notice)]
        assert notices == ["cpu ran out of memory. Once more under another plan: the text encoder streams."]
        assert model.placement.plan == Plan(text=False, blocks=2)
        assert np.array_equal(pixels(iter(events)), expected)

    def test_only_once(self, model: Model, failing: list[Exception | None]) -> None:
        failing[:] = [torch.OutOfMemoryError("one"), torch.OutOfMemoryError("two")]
        with pytest.raises(torch.OutOfMemoryError, match="two"):
            list(fitting.run(model, JOB))

    def test_other_errors_pass(self, model: Model, failing: list[Exception | None]) -> None:
        failing[:] = [RuntimeError("CUDA error: an illegal memory access was encountered")]
        with pytest.raises(RuntimeError, match="illegal"):
            list(fitting.run(model, JOB))

    def test_frames_that_were_shown_are_not_shown_again(
        self, model: Model, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, failed = autoencoder.decode, list[int]()

        def decode(*args: Any) -> Iterator[torch.Tensor]:
            for index, frame in enumerate(real(*args)):
                if index == 8 and not failed:
                    failed.append(index)
                    raise torch.OutOfMemoryError("CUDA out of memory")
                yield frame

        monkeypatch.setattr(pipeline, "decode", decode)
        monkeypatch.setattr(pipeline, "FRAMES_PER_EVENT", 5)
        assert np.array_equal(pixels(fitting.run(model, JOB)), expected)
        assert failed


CAPPED = """
import json, resource, sys
import numpy as np
import torch
from pathlib import Path
from keyreel.canvas import Size
from keyreel.engine import fitting, models, placement
from keyreel.engine.devices import is_out_of_memory
from keyreel.events import Frames
from keyreel.job import Job
from keyreel.plans import Plan

small, folder, cache = sys.argv[1], sys.argv[2], Path(sys.argv[3])
room, trusting = int(sys.argv[4]), sys.argv[5] == "trusting"
torch.set_num_threads(1)
job = Job("a red star", "dark", Size(64, 64), frames=1, steps=2, frame_rate=25, seed=5)

# Imports, threads and mapped files are not what is to be measured.
list(fitting.run(models.load_model(small, "cpu", cache), job))
if trusting:  # as if the device said that there is plenty
    placement.memory = lambda device: (10**12, 10**12)

real = placement.Placement.__init__
def capped(self, *args):
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    if room:
        resource.setrlimit(resource.RLIMIT_AS, (held + room, resource.RLIM_INFINITY))
    real(self, *args)
placement.Placement.__init__ = capped

model = models.load_model(folder, "cpu", cache)
everything = None
if room and not trusting:
    try:
        model.placement._lay_out(Plan(text=True, blocks=6))
        everything = "fits"
    except Exception as error:
        everything = "out of memory" if is_out_of_memory(error) else repr(error)
    model.placement._lay_out(Plan(text=False, blocks=0))
events = list(fitting.run(model, job))
frames = [event.pixels for event in events if isinstance(event, Frames)]
picture = np.concatenate(frames).tobytes().hex()
print(json.dumps({"blocks": model.placement.plan.blocks, "everything": everything, "picture": picture}))
"""
MIB = 2**20


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six blocks of 16.8 million weights: 200 MiB in the file, 400 MiB in the type that a CPU computes in."""
    folder = tiny_checkpoint(tmp_path_factory.mktemp("wide") / "tiny", dtype=torch.bfloat16)
    wide_one = LTXVideoTransformer3DModel(
        in_channels=16,
        out_channels=16,
        num_attention_heads=16,
        attention_head_dim=64,
        cross_attention_dim=1024,
        num_layers=6,
        caption_channels=24,
    )
    wide_one.to(torch.bfloat16).save_pretrained(folder / "transformer")
    return folder


def capped(small: Path, wide: Path, cache: Path, room: int, *, trusting: bool = False) -> dict[str, Any]:
    """Makes a picture in a process that can have so many bytes more than it has when the wide model is mapped.

    trusting: the planner is told of more.
    """
    command = [sys.executable, "-c", CAPPED, *map(str, (small, wide, cache, room)), "trusting" if trusting else ""]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.slow
def test_a_capped_process_makes_the_same_picture(folder: Path, wide: Path, tmp_path: Path) -> None:
    free = capped(folder, wide, tmp_path, 0)
    assert free["blocks"] == 6
    # Too little for all weights, enough for two blocks at a time. The planner sees the limit.
    tight = capped(folder, wide, tmp_path, 300 * MIB)
    assert (tight["blocks"], tight["everything"]) == (0, "out of memory")
    # Told of more than there is, it finds out by failing, and goes down until it fits.
    trusting = capped(folder, wide, tmp_path, 300 * MIB, trusting=True)
    assert 0 <= trusting["blocks"] <= 3
    assert free["picture"] == tight["picture"] == trusting["picture"]
