import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import LTXVideoTransformer3DModel

from keyreel.checkpoints import memory as plans
from keyreel.checkpoints.hub import content_sha256
from keyreel.checkpoints.memory import REFERENCE, Plan
from keyreel.engine import pipeline
from keyreel.engine import placement as placement_module
from keyreel.engine.models import Model, load_model
from keyreel.errors import ModelError
from keyreel.video.job import AdapterFile, Condition
from tests.engine.conftest import JOB, pixels
from tests.tiny_checkpoints import tiny_checkpoint, tiny_lora

PLANS = [Plan(text=True, blocks=2), Plan(text=False, blocks=2), Plan(text=False, blocks=1), Plan(text=False, blocks=0)]


@pytest.mark.parametrize("plan", PLANS)
def test_every_plan_gives_the_same_bytes(bf16_model: Model, expected: np.ndarray, plan: Plan) -> None:
    bf16_model.placement._follow(plan)
    assert np.array_equal(pixels(pipeline.run(bf16_model, JOB)), expected)


@pytest.mark.parametrize("plan", PLANS)
def test_every_plan_gives_the_same_bytes_with_a_lora_and_a_picture(
    bf16_model: Model, tmp_path: Path, plan: Plan
) -> None:
    lora = tiny_lora(tmp_path / "style.safetensors")
    picture = Condition(np.full((1, 64, 96, 3), 200, np.uint8), 8, 0.8)
    job = replace(JOB, adapters=(AdapterFile(lora, lora.name, content_sha256(lora), 1.0, ()),), conditions=(picture,))
    bf16_model.placement._follow(PLANS[0])
    resident = pixels(pipeline.run(bf16_model, job))
    bf16_model.placement._follow(plan)
    assert np.array_equal(pixels(pipeline.run(bf16_model, job)), resident)


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_eight_bits_change_the_video_but_it_is_the_same_under_every_plan(
    bf16_checkpoint: Path, tmp_path: Path, expected: np.ndarray, kind: str
) -> None:
    model = load_model(f"{bf16_checkpoint}+{kind}", "cpu", tmp_path)
    videos = []
    for plan in PLANS:
        model.placement._follow(plan)
        videos.append(pixels(pipeline.run(model, JOB)))
    assert all(np.array_equal(video, videos[0]) for video in videos)
    difference = np.abs(videos[0].astype(int) - expected.astype(int))
    assert 0 < difference.mean() < 8


class TestFit:
    """Plans under faked amounts of free memory."""

    @pytest.fixture
    def free(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """The bytes that the device reports as free. Tests change the element."""
        amount = [10**12]
        monkeypatch.setattr(placement_module, "memory", lambda _device: (amount[0], amount[0]))
        return amount

    def room_for(self, bf16_model: Model, plan: Plan) -> int:
        """Returns how much must be free, beside what the model holds now, for the plan to be chosen."""
        size = bf16_model.placement.size
        return plans.needed(plan, size, REFERENCE) - plans.held(bf16_model.placement.plan, size)

    def test_the_plan_follows_the_free_memory(self, bf16_model: Model, free: list[int]) -> None:
        for plan in (*PLANS, *reversed(PLANS)):
            free[0] = self.room_for(bf16_model, plan)
            bf16_model.placement.fit(REFERENCE)
            assert bf16_model.placement.plan == plan

    def test_the_least_plan_is_used_if_none_fits(self, bf16_model: Model, free: list[int]) -> None:
        free[0] = 0
        bf16_model.placement.fit(REFERENCE)
        assert bf16_model.placement.plan == PLANS[-1]

    def test_a_model_that_does_not_fit_under_any_plan_is_refused(
        self, bf16_checkpoint: Path, tmp_path: Path, free: list[int]
    ) -> None:
        free[0] = 1000
        with pytest.raises(ModelError, match=r"needs 0.0 GiB of cpu even when everything that can stream does"):
            load_model(str(bf16_checkpoint), "cpu", tmp_path)

    def test_later_plans_take_a_failure_into_account(self, bf16_model: Model, free: list[int]) -> None:
        free[0] = self.room_for(bf16_model, PLANS[0])
        bf16_model.placement.fit(REFERENCE)
        assert bf16_model.placement.step_down(REFERENCE)
        assert bf16_model.placement.plan == PLANS[1]
        free[0] = self.room_for(bf16_model, PLANS[0])
        bf16_model.placement.fit(REFERENCE)
        assert bf16_model.placement.plan == PLANS[1]

    def test_no_plan_follows_the_least(self, bf16_model: Model) -> None:
        bf16_model.placement._follow(PLANS[-1])
        assert not bf16_model.placement.step_down(REFERENCE)


CAPPED = """
import json, resource, sys
import numpy as np
import torch
from pathlib import Path
from keyreel.video.canvas import Size
from keyreel.engine import fitting, models, placement
from keyreel.engine.devices import is_out_of_memory
from keyreel.video.events import Frames
from keyreel.video.job import Job
from keyreel.checkpoints.memory import Plan

small, folder, cache = sys.argv[1], sys.argv[2], Path(sys.argv[3])
room, trusting = int(sys.argv[4]), sys.argv[5] == "trusting"
torch.set_num_threads(1)
job = Job("a red star", "dark", Size(64, 64), frames=1, steps=2, frame_rate=25, seed=5)

# Run once first, so that imports, threads and mapped files are not counted.
list(fitting.run(models.load_model(small, "cpu", cache), job))
if trusting:  # as if the device reported plenty of free memory
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
    """A model with six blocks of 16.8 million weights: 200 MiB in the file, 400 MiB in fp32."""
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
    """Makes a picture in a process that can allocate only `room` more bytes after the wide model has been mapped.

    room: 0 means no limit. trusting: the planner is told that much more is free.
    """
    command = [sys.executable, "-c", CAPPED, *map(str, (small, wide, cache, room)), "trusting" if trusting else ""]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.slow
def test_a_process_with_little_memory_makes_the_same_picture(bf16_checkpoint: Path, wide: Path, tmp_path: Path) -> None:
    free = capped(bf16_checkpoint, wide, tmp_path, 0)
    assert free["blocks"] == 6
    # Too little for all weights, but enough for two blocks at a time. The planner sees the limit.
    tight = capped(bf16_checkpoint, wide, tmp_path, 300 * MIB)
    assert (tight["blocks"], tight["everything"]) == (0, "out of memory")
    # A planner that is told of more tries plans until one fits.
    trusting = capped(bf16_checkpoint, wide, tmp_path, 300 * MIB, trusting=True)
    assert 0 <= trusting["blocks"] <= 3
    assert free["picture"] == tight["picture"] == trusting["picture"]
