"""The arithmetic of memory plans."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyreel.checkpoints import memory
from keyreel.checkpoints.catalogue import SIZE_2B, SIZE_13B
from keyreel.checkpoints.memory import GIB, LEAST, REFERENCE, ModelSize, Plan, Workload
from keyreel.video.canvas import SIZES, Grid, Size
from keyreel.video.job import AdapterFile, Condition, Job, Sampling

BF16 = ModelSize(SIZE_13B, weight=2)
INT8 = ModelSize(SIZE_13B, weight=2, quantised=True)
LTXV = Grid(32, 8)

free = st.integers(0, 200 * GIB)
works = st.builds(
    Workload, tokens=st.integers(1, 30_000), pixels=st.integers(1, 3_000_000), clip=st.sampled_from([1, 9, 161])
)


def chosen(gigabytes: float, model: ModelSize = BF16, work: Workload = REFERENCE) -> Plan | None:
    return memory.choose(model, work, int(gigabytes * GIB))


@pytest.mark.parametrize(
    ("gigabytes", "text", "description"),
    [
        (140.0, True, "everything stays"),
        (79.0, True, "everything stays"),
        (47.0, True, "everything stays"),
        (39.0, True, "everything stays"),
        (37.0, False, "the text encoder streams"),
        (31.5, False, "the text encoder streams"),
        (23.5, False, "the text encoder and 15 of 48 transformer blocks stream"),
        (15.5, False, "the text encoder and 31 of 48 transformer blocks stream"),
        (11.5, False, "the text encoder and 39 of 48 transformer blocks stream"),
    ],
)
def test_plans_for_the_13b_model(gigabytes: float, text: bool, description: str) -> None:
    plan = chosen(gigabytes)
    assert plan
    assert plan.text == text
    assert memory.describe(plan, SIZE_13B) == description


def test_too_little_memory_has_no_plan() -> None:
    assert chosen(6) is None
    assert memory.needed(LEAST, BF16, REFERENCE) / GIB == pytest.approx(6.6, abs=0.1)


def test_int8_keeps_more_on_the_device() -> None:
    bf16, int8 = chosen(23.5), chosen(23.5, INT8)
    assert bf16
    assert int8
    assert int8.blocks == 48 > bf16.blocks


def test_weights_have_the_published_sizes() -> None:
    """Transformer, VAE and text encoder: 24.3 + 2.3 + 8.9 GiB in bf16, 48.6 + 4.65 + 17.7 GiB in fp32."""
    everything = Plan(text=True, blocks=48)
    assert memory.held(everything, BF16) / GIB == pytest.approx(35.5, abs=0.1)
    assert memory.held(everything, replace(BF16, weight=4)) / GIB == pytest.approx(71.0, abs=0.1)
    assert memory.streamed_blocks(everything, BF16) == 0


@given(works)
def test_held_and_streamed_weights_add_up(work: Workload) -> None:
    first, *others = memory.ladder(SIZE_13B)
    sizes = [memory.held(plan, BF16) + memory.streamed_blocks(plan, BF16) for plan in (first, *others)]
    assert sizes[0] - sizes[1] == SIZE_13B.text_encoder.blocks * SIZE_13B.text_encoder.block * 2
    assert all(abs(size - sizes[1]) <= 48 for size in sizes[1:])
    assert memory.needed(LEAST, BF16, work) > memory.held(LEAST, BF16)


@given(free, free, works)
def test_more_memory_never_gives_a_smaller_plan(one: int, other: int, work: Workload) -> None:
    low, high = (memory.choose(BF16, work, size) for size in sorted((one, other)))
    if low:
        assert high
        assert (high.text, high.blocks) >= (low.text, low.blocks)


@given(free, works, works)
def test_larger_request_never_gets_a_larger_plan(size: int, one: Workload, other: Workload) -> None:
    larger = Workload(max(one.tokens, other.tokens), max(one.pixels, other.pixels), max(one.clip, other.clip))
    small, large = memory.choose(BF16, one, size), memory.choose(BF16, larger, size)
    if large:
        assert small
        assert (small.text, small.blocks) >= (large.text, large.blocks)


@given(free, works)
def test_chosen_plan_fits(size: int, work: Workload) -> None:
    if plan := memory.choose(BF16, work, size):
        assert memory.needed(plan, BF16, work) <= size
    else:
        assert memory.needed(LEAST, BF16, work) > size


class TestFollowing:
    """The plan for the next request, by what must be free for it."""

    def after(self, plan: Plan, room_for: Plan, work: Workload = REFERENCE) -> Plan:
        return memory.following(plan, BF16, work, memory.needed(room_for, BF16, work))

    def test_a_small_gain_moves_nothing(self) -> None:
        kept = Plan(text=False, blocks=30)
        assert self.after(kept, Plan(text=False, blocks=30)) == kept
        assert self.after(kept, Plan(text=False, blocks=35)) == kept

    def test_an_eighth_of_the_blocks_is_worth_it(self) -> None:
        larger = Plan(text=False, blocks=36)
        assert self.after(Plan(text=False, blocks=30), larger) == larger

    def test_the_text_encoder_is_worth_it(self) -> None:
        everything = Plan(text=True, blocks=48)
        assert self.after(Plan(text=False, blocks=48), everything) == everything

    def test_a_plan_that_does_not_fit_is_left_at_once(self) -> None:
        smaller = Plan(text=False, blocks=29)
        assert self.after(Plan(text=False, blocks=30), smaller) == smaller
        assert memory.following(smaller, BF16, REFERENCE, 0) == LEAST

    @given(free, works, st.sampled_from(list(memory.ladder(SIZE_13B))))
    def test_it_fits_if_any_does(self, size: int, work: Workload, plan: Plan) -> None:
        best = memory.choose(BF16, work, size)
        following = memory.following(plan, BF16, work, size)
        assert following == LEAST if best is None else memory.needed(following, BF16, work) <= size

    def test_requests_that_take_turns_do_not_move_blocks_each_time(self) -> None:
        """After both sizes have been there once, the smaller one runs under the plan of the larger one."""
        plans = [LEAST]
        for work in (REFERENCE, replace(REFERENCE, tokens=REFERENCE.tokens + 4000)) * 3:
            plans.append(memory.following(plans[-1], BF16, work, 24 * GIB))
        assert [plan.blocks for plan in plans] == [0, 34, 33, 33, 33, 33, 33]


def test_retries_end_with_the_smallest_plan() -> None:
    plan: Plan | None = Plan(text=True, blocks=48)
    seen = []
    while plan:
        seen.append(plan)
        plan = memory.after(plan, SIZE_13B)
    assert [each.blocks for each in seen] == [48, 48, 24, 12, 6, 3, 1, 0]
    assert seen[-1] == LEAST
    needs = [memory.needed(each, BF16, REFERENCE) for each in seen]
    assert needs[1] < needs[0]
    assert sorted(needs[2:], reverse=True) == needs[2:]


class TestWorkload:
    job = Job("", "", SIZES["720p", "16:9"], frames=89, steps=30, frame_rate=25, seed=0)

    def test_prompt_alone(self) -> None:
        assert memory.workload(self.job, LTXV) == Workload(tokens=12 * 23 * 40, pixels=1280 * 736)

    def test_conditions_after_the_first_frame_add_tokens(self) -> None:
        def pinned(frames: int, start: int) -> Condition:
            return Condition(np.zeros((frames, 1, 1, 3), np.uint8), start, 1.0)

        job = replace(self.job, conditions=(pinned(1, 0), pinned(1, 40), pinned(17, 48)))
        assert memory.workload(job, LTXV) == Workload(tokens=(12 + 1 + 2) * 23 * 40, pixels=1280 * 736, clip=17)

    def test_larger_pass_counts(self) -> None:
        job = replace(self.job, size=Size(960, 960), sampling=Sampling(recipe="multiscale"))
        assert memory.workload(job, LTXV) == Workload(tokens=12 * 40 * 40, pixels=1280 * 1280)

    def test_loras_count_with_half_their_bytes(self, tmp_path: Path) -> None:
        (tmp_path / "lora").write_bytes(bytes(1000))
        job = replace(self.job, adapters=(AdapterFile(tmp_path / "lora", "lora", "", 1.0, ()),) * 2)
        assert memory.workload(job, LTXV).adapters == 1000


def test_2b_model_stays_in_24_gb() -> None:
    assert chosen(23.5, ModelSize(SIZE_2B, weight=2)) == Plan(text=True, blocks=28)
