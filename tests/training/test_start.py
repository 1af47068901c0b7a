"""What an untrained transformer computes: it copies pinned pictures and knows where the subject should be.

`training.start` sets these weights with `training.layout`, `training.pins` and `training.signposts`.
"""

from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from itertools import pairwise

import pytest
import torch
from diffusers import LTXVideoTransformer3DModel
from torch import Tensor
from training.autoencoder import LATENTS, LOTS, MEANS
from training.content import TOKEN
from training.layout import DISTANCES, DRAWN_MARK, FEWNESS, GUIDES, HEAD, NEARNESS, SIGHTS
from training.pins import CLOSE, HANDERS
from training.signposts import CROWDS, OCTAVE, ODDS, SIGNPOST, SIGNPOSTS
from training.start import held
from training.text import WIDTH
from training.transformer import _new_transformer

ROWS, COLUMNS, FRAMES = 6, 9, 4
LARGEST = (12, 20)  # rows and columns of 1280x768
DRAWN = (2, 3, 4)  # latent frame, row, column


@pytest.fixture(scope="module")
def model() -> LTXVideoTransformer3DModel:
    torch.manual_seed(0)
    return _new_transformer()


def _velocity(
    model: LTXVideoTransformer3DModel,
    tokens: Tensor,
    timestep: Tensor,
    times: Sequence[float] = (0, 8, 16, 24),
    size: tuple[int, int] = (ROWS, COLUMNS),
) -> Tensor:
    """Returns the velocity of each token, (1, N, 78). times: the frame numbers of the latent frames."""
    seconds, rows, columns = torch.meshgrid(
        torch.tensor(times) / 25,
        torch.arange(float(size[0])) * TOKEN,
        torch.arange(float(size[1])) * TOKEN,
        indexing="ij",
    )
    with torch.no_grad():
        velocity: Tensor = model(
            hidden_states=tokens.to(model.dtype),
            encoder_hidden_states=torch.ones(1, 4, WIDTH, dtype=model.dtype),
            encoder_attention_mask=torch.ones(1, 4, dtype=model.dtype),
            timestep=timestep,
            video_coords=torch.stack([seconds, rows, columns]).flatten(1)[None],
            return_dict=False,
        )[0]
    return velocity.float()


class _ReachedError(Exception):
    """Ends a run of the model after the block that a test asks about."""


def _run(
    model: LTXVideoTransformer3DModel,
    block: int,
    tokens: Tensor,
    timestep: Tensor,
    times: Sequence[float] = (0, 8, 16, 24),
    size: tuple[int, int] = (ROWS, COLUMNS),
) -> Tensor:
    """Returns the output of a block, (N, 256)."""
    seen: list[Tensor] = []

    def watch(_module: object, _given: object, made: Tensor) -> None:
        seen.append(made)
        raise _ReachedError

    with model.transformer_blocks[block].register_forward_hook(watch), suppress(_ReachedError):
        _velocity(model, tokens, timestep, times, size)
    return seen[0][0]


def _pinned(model: LTXVideoTransformer3DModel, pins: list[int], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Runs clean pictures, pinned at the frames `pins`, in front of 12 latent frames of noise.

    Returns the pictures and what the first layer makes of the noise, (latent frames, tokens, channels).
    """
    times, area = [*pins, 0, *range(1, 89, 8)], size[0] * size[1]
    tokens = torch.randn((1, len(times), area, LATENTS), generator=torch.Generator().manual_seed(1))
    tokens[:, : len(pins)] *= 0.7
    timestep = torch.full((1, len(times), area), 1000.0)
    timestep[:, : len(pins)] = 0
    output = _run(model, 0, tokens.flatten(1, 2), timestep.flatten(1), times, size)
    return tokens[0, : len(pins)], output.view(len(times), area, -1)[len(pins) :]


def _correlation(one: Tensor, other: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])


@pytest.mark.parametrize("size", [(ROWS, COLUMNS), LARGEST])
def test_the_first_layer_copies_the_pinned_picture_of_the_same_place(
    model: LTXVideoTransformer3DModel, size: tuple[int, int]
) -> None:
    clean, output = _pinned(model, [40], size)
    for estimate in output[..., LATENTS : 2 * LATENTS]:
        assert _correlation(estimate, clean[0]) > 0.99
        assert 0.95 < (estimate * clean[0]).sum() / clean[0].square().sum() < 1.05


@pytest.mark.parametrize("size", [(ROWS, COLUMNS), LARGEST])
def test_tokens_hold_the_coarse_part_of_the_nearest_pinned_picture(
    model: LTXVideoTransformer3DModel, size: tuple[int, int]
) -> None:
    clean, output = _pinned(model, [16, 72], size)
    coarse = MEANS[:HEAD]
    for frame, nearest in ((1, 0), (2, 0), (4, 0), (7, 1), (9, 1), (11, 1)):
        assert _correlation(output[frame][:, GUIDES[:HEAD]], clean[nearest][:, coarse]) > 0.98


@pytest.mark.parametrize("size", [(ROWS, COLUMNS), LARGEST])
@pytest.mark.parametrize("pin", [40, 36])
def test_tokens_of_a_pinned_frame_are_marked_and_hold_its_fine_part(
    model: LTXVideoTransformer3DModel, size: tuple[int, int], pin: int
) -> None:
    """Frames 33 to 40 are the latent frame with index 5."""
    clean, output = _pinned(model, [pin], size)
    assert _correlation(output[5][:, GUIDES[HEAD:]], clean[0][:, MEANS[HEAD:]]) > 0.98
    nearness = output[..., NEARNESS].mean(1) / CLOSE
    assert nearness[5] > 0.9
    assert nearness[[*range(4), *range(7, 12)]].abs().max() < 0.1


def test_nearness_is_zero_without_pinned_frames(model: LTXVideoTransformer3DModel) -> None:
    _, output = _pinned(model, [], (ROWS, COLUMNS))
    assert output[..., NEARNESS].abs().max() < 0.1 * CLOSE


def _randomised(start: LTXVideoTransformer3DModel) -> LTXVideoTransformer3DModel:
    """Returns a copy with random outputs wherever training may change weights, as large as after training."""
    model, masks = deepcopy(start), held(start)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("to_out.0.weight", "ff.net.2.weight", "proj_out.weight")):
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator) * ~masks[name]
    return model


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sigma", [1.0, 0.7, 0.3, 0.12])
@pytest.mark.parametrize("size", [(ROWS, COLUMNS), LARGEST])
def test_a_pinned_frame_is_handed_over_whatever_the_layers_output(
    model: LTXVideoTransformer3DModel, size: tuple[int, int], sigma: float, dtype: torch.dtype
) -> None:
    """The velocity of its tokens leads to the pinned picture."""
    clean, noise = torch.randn(
        (2, size[0] * size[1], LATENTS), generator=torch.Generator().manual_seed(2), dtype=torch.float32
    )
    clean[:, [latent for latent in range(LATENTS) if latent not in MEANS]] = 0  # the picture stands still
    times = [40, *range(1, 89, 8)]
    others = torch.randn((len(times), *clean.shape), generator=torch.Generator().manual_seed(3))
    others[0], others[5] = clean, (1 - sigma) * clean + sigma * noise
    timestep = torch.full(others.shape[:2], sigma * 1000)
    timestep[0] = 0
    velocity = _velocity(
        _randomised(model).to(dtype), others.flatten(0, 1)[None], timestep.flatten()[None], times, size
    )
    reached = others[5] - sigma * velocity.view(others.shape)[5]
    seen = (reached - clean)[:, MEANS]
    assert seen.square().mean().sqrt() < 0.04 + 0.11 * sigma


def test_the_units_that_hand_over_do_nothing_without_pinned_frames(model: LTXVideoTransformer3DModel) -> None:
    bare = deepcopy(model)
    with torch.no_grad():
        bare.transformer_blocks[-1].ff.net[2].weight[:, HANDERS.start :] = 0
    output, bare_output = (_velocity(one, _noise(7), torch.full((1, 1), 700.0)) for one in (model, bare))
    assert torch.allclose(output, bare_output, atol=1e-4)


def _noise(seed: int) -> Tensor:
    """Returns noise in which the token `DRAWN` has the highest lot, by 0.1."""
    noise = torch.randn((1, FRAMES, ROWS, COLUMNS, LATENTS), generator=torch.Generator().manual_seed(seed))
    noise[0, *DRAWN, LOTS] = noise[..., LOTS].max() + 0.1
    return noise.flatten(1, 3)


@pytest.mark.parametrize("sigma", [1.0, 0.9, 0.7])
@pytest.mark.parametrize("seed", range(4))
def test_only_the_token_with_the_highest_lot_is_marked(
    model: LTXVideoTransformer3DModel, seed: int, sigma: float
) -> None:
    picture = torch.randn(LATENTS).expand(1, FRAMES * ROWS * COLUMNS, -1).clone()
    picture[..., LOTS] = 0.0
    tokens = (1 - sigma) * picture + sigma * _noise(seed)
    mark = _run(model, 0, tokens, torch.full((1, 1), sigma * 1000))[:, DRAWN_MARK].view(FRAMES, ROWS, COLUMNS)
    assert mark[DRAWN] > 3.5
    mark[DRAWN] = 0
    assert mark.abs().max() < 1.0


@pytest.mark.parametrize("number", range(len(SIGNPOSTS)))
def test_signposts_rise_towards_their_side_of_the_drawn_token(model: LTXVideoTransformer3DModel, number: int) -> None:
    post = SIGNPOSTS[number]
    output = _run(model, -1, _noise(7), torch.full((1, 1), 1000.0)).view(FRAMES, ROWS, COLUMNS, -1)
    place: list[int | slice] = [*DRAWN]
    place[post.axis] = slice(max(0, DRAWN[post.axis] - 3), DRAWN[post.axis] + 3)
    for channel in (SIGHTS[number], DISTANCES[number]):
        line = output[*place, channel] * post.sign
        assert (line.diff() < 0).all()  # the farther along the axis a token is, the farther back the drawn token


def test_distances_are_the_logarithms_of_the_sights(model: LTXVideoTransformer3DModel) -> None:
    """In octaves of odds, because the drawn token competes for attention with all other tokens."""
    output = _run(model, -1, _noise(7), torch.full((1, 1), 1000.0))
    for sight, distance in zip(output[:, SIGHTS].T, output[:, DISTANCES].T, strict=True):
        share = sight / SIGNPOST
        odds = (share / (1 - share)).log2()
        known = (odds > ODDS[0] + 1) & (odds < ODDS[-1] - 1)
        assert known.sum() > 100
        assert (distance[known] / OCTAVE - odds[known]).std() < 0.25


def test_fewness_falls_by_octaves_with_the_number_of_tokens(model: LTXVideoTransformer3DModel) -> None:
    means = []
    for frames in (1, 4, 16):
        noise = torch.randn((1, frames * ROWS * COLUMNS, LATENTS), generator=torch.Generator().manual_seed(3))
        noise[0, 0, LOTS] = noise[..., LOTS].max() + 0.1
        fewness = _run(model, 1, noise, torch.full((1, 1), 1000.0), range(0, 8 * frames, 8))[:, FEWNESS]
        assert fewness.std() < 0.05
        means.append(fewness.mean())
    for few, many in pairwise(means):
        assert 1.5 < (few - many) / OCTAVE < 2.5  # four times as many
    assert max(map(abs, means)) < OCTAVE * len(CROWDS) / 2  # within its range
