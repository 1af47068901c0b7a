"""The protocol between ranks, over real pipes in one process. `test_rank_process.py` draws videos with real ranks."""

from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import Pipe

import pytest
import torch
from diffusers import LTXVideoTransformer3DModel

from keyreel.engine.models import Model
from keyreel.engine.pipeline import work_of
from keyreel.engine.ranks import ALONE, BrokenGroupError, Group, HaltedError, check_heads, teams_for
from keyreel.errors import ModelError
from keyreel.video.job import Sampling
from keyreel.video.recipes import Guidance
from tests.engine.conftest import JOB
from tests.tiny_checkpoints import tiny_transformer

CPU = torch.device("cpu")


@pytest.fixture
def pair() -> Iterator[tuple[Group, Group]]:
    """Rank 0 and rank 1 of a group of two."""
    ours, theirs = Pipe()
    with ours, theirs:
        yield Group(0, 2, [ours]), Group(1, 2, [theirs])


@pytest.fixture(scope="module")
def six_heads() -> LTXVideoTransformer3DModel:
    return tiny_transformer(torch.Generator().manual_seed(1), heads=6)


@pytest.mark.parametrize(
    ("tokens", "size", "counts"), [(7, 3, (3, 2, 2)), (8, 2, (4, 4)), (1, 2, (1, 0)), (5, 1, (5,))]
)
def test_tokens_are_split_as_evenly_as_possible(tokens: int, size: int, counts: tuple[int, ...]) -> None:
    splits = [Group(rank, size).split(tokens) for rank in range(size)]
    assert {split.counts for split in splits} == {counts}
    whole = torch.arange(tokens)[None]
    assert torch.equal(torch.cat([split.cut(whole, 1) for split in splits], dim=1), whole)


def test_one_rank_exchanges_nothing() -> None:
    split = ALONE.split(4)
    vectors = torch.randn(1, 4, 6)
    assert split.to_heads(2, vectors, vectors)[0] is vectors
    assert split.to_tokens(2, vectors) is vectors
    assert split.joined([vectors])[0] is vectors


def test_the_forwards_are_split_among_the_teams_and_the_tokens_within_each() -> None:
    splits = [Group(rank, 4).split(5, teams=2) for rank in range(4)]
    assert [split.own(2) for split in splits] == [slice(0, 1), slice(0, 1), slice(1, 2), slice(1, 2)]
    assert [(split.counts, split.rank) for split in splits] == [((3, 2), 0), ((3, 2), 1)] * 2


PLAIN, CFG = Guidance(), Guidance(3.0)
STG, CFG_STG = Guidance(1.0, 1.0, 0.7, (28,)), Guidance(3.0, 1.0, 0.7, (28, 35))


@pytest.mark.parametrize(
    ("guidance", "ranks", "teams"),
    [
        (PLAIN, 1, 1),
        (PLAIN, 3, 1),
        (CFG, 1, 1),
        (CFG, 2, 2),
        (CFG, 3, 1),
        (CFG, 4, 2),
        (CFG_STG, 2, 1),
        (CFG_STG, 3, 3),
        # Apart they would compute the first 28 of 48 blocks more often than together.
        (STG, 2, 1),
        (CFG_STG, 6, 1),
    ],
)
def test_each_forward_gets_a_team_where_that_saves_exchanges(guidance: Guidance, ranks: int, teams: int) -> None:
    assert teams_for(guidance, 48, ranks) == teams


def test_each_device_needs_an_attention_head(six_heads: LTXVideoTransformer3DModel) -> None:
    for count in (1, 4, 6):
        check_heads(six_heads, [CPU] * count)
    with pytest.raises(ModelError, match=r"has 6 attention heads, so at most 6 devices can share it\."):
        check_heads(six_heads, [CPU] * 7)


def test_a_model_knows_its_ranks(model: Model) -> None:
    assert (model.ranks, model.device_names) == (1, "cpu")


@pytest.mark.parametrize(("guidance_scale", "divisor"), [(3.0, 1), (1.0, 2)])
def test_a_rank_needs_memory_for_all_tokens_of_a_whole_forward(
    model: Model, guidance_scale: float, divisor: int
) -> None:
    job = replace(JOB, sampling=Sampling(guidance_scale=guidance_scale))
    alone, pair = work_of(model, job), work_of(replace(model, devices=(CPU, CPU)), job)
    assert pair == replace(alone, tokens=-(-alone.tokens // divisor))


def test_the_others_take_each_step_that_rank_0_takes(pair: tuple[Group, Group]) -> None:
    first, other = pair
    with first.drawing(lambda: "a fox"):
        first.begin_step()
        first.begin_step()
    assert other.receive() == "a fox"
    other.begin_step()
    other.begin_step()


def test_the_others_stop_when_rank_0_is_stopped_between_steps(pair: tuple[Group, Group]) -> None:
    first, other = pair

    def draw() -> Iterator[None]:
        with first.drawing(lambda: "a fox"):
            first.begin_step()
            yield

    events = draw()
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert other.receive() == "a fox"
    other.begin_step()
    with pytest.raises(HaltedError):
        other.begin_step()
    assert not first.is_broken


def test_a_group_whose_rank_0_fails_is_broken(pair: tuple[Group, Group]) -> None:
    """Out of memory as well: the others may wait in an exchange, so a smaller memory plan cannot be tried."""
    group, _ = pair
    failed = "Rank 0 of 2 failed: OutOfMemoryError: too large"
    with pytest.raises(BrokenGroupError, match=failed), group.drawing(lambda: None):
        raise torch.OutOfMemoryError("too large")
    assert group.is_broken


def test_one_rank_passes_its_errors_on() -> None:
    with pytest.raises(torch.OutOfMemoryError), ALONE.drawing(lambda: None):
        raise torch.OutOfMemoryError
    assert not ALONE.is_broken


def test_the_others_notice_that_rank_0_is_gone(pair: tuple[Group, Group]) -> None:
    first, other = pair
    first._links[0].close()
    with pytest.raises(EOFError):
        other.begin_step()
