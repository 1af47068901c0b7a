from random import Random

import pytest
import torch
from training.autoencoder import BLOCK, LATENTS, LOTS
from training.batches import (
    PARTS,
    Scales,
    _cover_of_tokens,
    _focus_of_tokens,
    _inside,
    make_batch,
)
from training.content import SAMPLES, Layout, one_subject


def test_focus_is_higher_on_subjects_and_highest_on_outlines() -> None:
    focus = torch.zeros(SAMPLES, BLOCK, 3 * BLOCK)
    focus[..., : BLOCK + 2] = 1
    assert _focus_of_tokens(focus).tolist() == [1, 2, 0]


def test_focus_includes_outlines_that_only_some_frames_show() -> None:
    focus = torch.ones(SAMPLES, BLOCK, BLOCK)
    focus[1:] = 0
    assert _focus_of_tokens(focus).tolist() == [2]


@pytest.mark.parametrize(("rows", "columns"), [(5, 7), (8, 6)])
def test_subjects_are_at_the_token_with_the_highest_lot_but_off_the_edges(rows: int, columns: int) -> None:
    scales = Scales(torch.zeros(LATENTS), torch.ones(LATENTS))
    batch = make_batch(Random(4), Layout(12, rows, columns, 9, 1), scales, pinned=False, content=one_subject)  # noqa: S311
    # The noise of tokens x with velocity v is x + (1 - sigma) v.
    noise = batch.tokens + (1 - batch.timestep / 1000)[..., None] * batch.target
    for lots, weight in zip(noise[:, :, LOTS], batch.weight, strict=True):
        row, column = divmod(int(lots.argmax()), columns)
        row, column = min(max(row, 2), rows - 3), min(max(column, 2), columns - 3)
        heavy = (weight > weight.min()).reshape(rows, columns)
        assert heavy[row, column]
        ys, xs = heavy.nonzero(as_tuple=True)
        assert (ys - row).abs().max() <= 4
        assert (xs - column).abs().max() <= 4


def test_cover_gives_the_share_of_each_part_of_a_token() -> None:
    focus = torch.zeros(SAMPLES, 2 * BLOCK, 2 * BLOCK)
    focus[0, BLOCK : BLOCK + 2, :3] = 1  # one and a half parts of the lower left token, in one sample
    cover = _cover_of_tokens(focus)
    assert cover.shape == (4, PARTS**2)
    assert cover[2].tolist() == [1 / SAMPLES, 0.5 / SAMPLES] + [0] * (PARTS**2 - 2)
    assert not cover[[0, 1, 3]].any()


def test_places_are_known_unless_frames_are_pinned() -> None:
    scales = Scales(torch.zeros(LATENTS), torch.ones(LATENTS))
    free = make_batch(Random(4), Layout(6, 8, 8, 89, 12), scales, pinned=False, content=one_subject)  # noqa: S311
    outline = free.weight / free.weight.amin(1, keepdim=True) > 5
    assert free.places[..., :2].norm(dim=-1)[outline].max() < 1.9  # the middle of a token is half a token from its edge
    pinned = make_batch(Random(4), Layout(6, 8, 8, 89, 12), scales, pinned=True, content=one_subject)  # noqa: S311
    assert pinned.places.shape == (*pinned.tokens.shape[:2], 9)
    assert pinned.places.isnan().all()


@pytest.mark.parametrize(("count", "margin"), [(1, 0), (4, 1), (5, 2), (8, 2), (12, 3), (20, 5)])
def test_subjects_keep_a_margin_of_a_quarter_in_large_frames(count: int, margin: int) -> None:
    assert {_inside(place, count) for place in range(count)} == set(range(margin, count - margin))
