"""Where conditions go in the sequence. `test_oracle.py` compares their numbers with diffusers'."""

import numpy as np
import torch

from keyreel.engine import latents, noise
from keyreel.engine.conditions import PinnedLatents, encode_condition, initial_noise, resized, token_sequence
from keyreel.engine.models import Model
from keyreel.video.canvas import Grid, Size
from keyreel.video.job import Condition

GRID = Grid(32, 8)
SHAPE = (5, 2, 3)
CELLS = 6
"""Latent cells of a frame."""
SEED = 4


def pin(start: int, frames: int, strength: float = 1.0) -> PinnedLatents:
    return PinnedLatents(noise.draw(1, "pin", start, (1, 16, frames, 2, 3)), start, strength)


def start() -> torch.Tensor:
    return initial_noise(SHAPE, 16, SEED)


def test_a_condition_at_frame_0_is_mixed_into_the_grid() -> None:
    first = pin(0, 2, strength=0.25)
    sequence = token_sequence([first], start(), GRID, SEED)
    grid = latents.unpack(sequence.tokens, SHAPE)
    assert sequence.extra == 0
    torch.testing.assert_close(grid[:, :, :2], 0.75 * start()[:, :, :2] + 0.25 * first.latents)
    assert torch.equal(grid[:, :, 2:], start()[:, :, 2:])
    assert sequence.pinned.tolist() == [0.25] * 2 * CELLS + [0.0] * 3 * CELLS


def test_a_later_picture_becomes_tokens_in_front() -> None:
    picture = pin(13, 1)
    sequence = token_sequence([picture], start(), GRID, SEED)
    assert sequence.extra == CELLS
    assert torch.equal(sequence.tokens[:, :CELLS], latents.pack(picture.latents))
    assert torch.equal(sequence.tokens[:, CELLS:], latents.pack(start()))
    assert sequence.pinned.tolist() == [1.0] * CELLS + [0.0] * 5 * CELLS
    assert sequence.coordinates[0, :CELLS].tolist() == [13.0] * CELLS
    assert torch.equal(sequence.coordinates[:, CELLS:], latents.coordinates(SHAPE, GRID))


def test_a_later_clip_is_split_between_tokens_in_front_and_the_grid() -> None:
    clip = pin(8, 4, strength=0.5)
    sequence = token_sequence([clip], start(), GRID, SEED)
    assert sequence.extra == 2 * CELLS
    assert sequence.coordinates[0, : 2 * CELLS].tolist() == [8.0] * CELLS + [9.0] * CELLS
    grid = latents.unpack(sequence.tokens[:, 2 * CELLS :], SHAPE)
    torch.testing.assert_close(grid[:, :, 3:], (start()[:, :, 3:] + clip.latents[:, :, 2:]) / 2)
    assert sequence.pinned.tolist() == [0.5] * 2 * CELLS + [0.0] * 3 * CELLS + [0.5] * 2 * CELLS


def test_tokens_in_front_are_in_the_order_of_the_conditions() -> None:
    sequence = token_sequence([pin(24, 1), pin(0, 1), pin(5, 1)], start(), GRID, SEED)
    assert sequence.extra == 2 * CELLS
    assert sequence.coordinates[0, : 2 * CELLS].tolist() == [24.0] * CELLS + [5.0] * CELLS


def test_each_weak_condition_has_its_own_noise() -> None:
    weak = pin(16, 1, strength=0.5)
    tokens = token_sequence([weak, weak], start(), GRID, SEED).tokens
    assert not torch.equal(tokens[:, :CELLS], tokens[:, CELLS : 2 * CELLS])
    other_seed = token_sequence([weak, weak], start(), GRID, SEED + 1).tokens
    assert not torch.equal(tokens[:, :CELLS], other_seed[:, :CELLS])


def test_the_latents_of_the_start_are_not_changed() -> None:
    given = start()
    token_sequence([pin(0, 1), pin(8, 3)], given, GRID, SEED)
    assert torch.equal(given, start())


def test_a_longer_video_begins_with_the_noise_of_a_shorter_one() -> None:
    assert torch.equal(initial_noise((5, 2, 3), 16, SEED)[:, :, :3], initial_noise((3, 2, 3), 16, SEED))


@torch.inference_mode()
def test_the_margin_repeats_the_edges(model: Model) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (1, 81, 95, 3), dtype=np.uint8)
    rows, columns = np.clip(np.arange(96) - 7, 0, 80), np.clip(np.arange(96), 0, 94)
    whole = pixels[:, rows][:, :, columns]
    drawn = Size(96, 96)
    padded, expected = (encode_condition(model.vae, Condition(each, 0, 1.0), drawn) for each in (pixels, whole))
    assert torch.equal(padded.latents, expected.latents)
    assert padded.latents.shape == (1, 16, 1, 3, 3)


@torch.inference_mode()
def test_a_picture_of_one_colour_has_the_same_latents_at_the_size_of_another_pass(model: Model) -> None:
    pixels = np.full((1, 128, 192, 3), (200, 30, 90), np.uint8)
    small = encode_condition(model.vae, Condition(pixels, 0, 1.0), Size(192, 128), at=Size(96, 64))
    expected = encode_condition(model.vae, Condition(pixels[:, :64, :96], 0, 1.0), Size(96, 64))
    torch.testing.assert_close(small.latents, expected.latents, rtol=0, atol=1e-5)


def test_resizing_has_no_low_pass_filter() -> None:
    """At a third of the size, a pixel is the middle one of nine and not their mean."""
    frames = noise.draw(1, "frames", 0, (2, 3, 12, 18))
    torch.testing.assert_close(resized(frames, Size(6, 4)), frames[:, :, 1::3, 1::3])
