"""The protocol between ranks, over real pipes in one process. `test_rank_process.py` draws videos with real ranks."""

from collections.abc import Iterator
from multiprocessing import Pipe

import pytest
import torch
from diffusers import LTXVideoTransformer3DModel

from keyreel.engine.models import Model
from keyreel.engine.ranks import ALONE, BrokenGroupError, Group, HaltedError, check_heads
from keyreel.errors import ModelError
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
    assert split.to_heads(vectors, vectors)[0] is vectors
    assert split.to_tokens(vectors) is vectors
    assert split.joined(vectors) is vectors


def test_heads_must_be_shared_evenly(six_heads: LTXVideoTransformer3DModel) -> None:
    for count in (1, 2, 3, 6):
        check_heads(six_heads, [CPU] * count)
    with pytest.raises(ModelError, match=r"has 6 attention heads, which 4 devices cannot.*: 1, 2, 3, 6\."):
        check_heads(six_heads, [CPU] * 4)


def test_a_model_knows_its_ranks(model: Model) -> None:
    assert (model.ranks, model.device_names) == (1, "cpu")


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
