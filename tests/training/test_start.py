"""What the transformer knows before any training."""

from itertools import pairwise

import pytest
import torch
from diffusers import LTXVideoTransformer3DModel
from torch import Tensor
from training.autoencoder import LATENTS, LOTS
from training.batches import TOKEN
from training.optimise import Hold
from training.start import CROWDS, DISTANCES, DRAWN_MARK, FEWNESS, OCTAVE, ODDS, SIGHTS, SIGNPOST, SIGNPOSTS, held
from training.text import WIDTH
from training.transformer import _new_transformer

ROWS, COLUMNS, FRAMES = 6, 9, 4
DRAWN = (2, 3, 4)  # latent frame, row, column


@pytest.fixture(scope="module")
def model() -> LTXVideoTransformer3DModel:
    torch.manual_seed(0)
    return _new_transformer()


def _run(model: LTXVideoTransformer3DModel, tokens: Tensor, timestep: Tensor, frames: int = FRAMES) -> list[Tensor]:
    """What each block hands on, (1, N, 256)."""
    times, rows, columns = torch.meshgrid(
        torch.arange(frames) * 8 / 25,
        torch.arange(float(ROWS)) * TOKEN,
        torch.arange(float(COLUMNS)) * TOKEN,
        indexing="ij",
    )
    seen: list[Tensor] = []

    def watch(_module: object, _given: object, made: Tensor) -> None:
        seen.append(made)

    hooks = [block.register_forward_hook(watch) for block in model.transformer_blocks]
    with torch.no_grad():
        model(
            hidden_states=tokens,
            encoder_hidden_states=torch.randn(1, 4, WIDTH),
            encoder_attention_mask=torch.ones(1, 4),
            timestep=timestep,
            video_coords=torch.stack([times, rows, columns]).flatten(1)[None],
            return_dict=False,
        )
    for hook in hooks:
        hook.remove()
    return seen


def test_the_first_layer_copies_what_is_pinned_at_the_same_place(model: LTXVideoTransformer3DModel) -> None:
    """The first latent frame is a clean picture, the others are noise."""
    tokens = torch.randn((1, FRAMES, ROWS * COLUMNS, LATENTS), generator=torch.Generator().manual_seed(1))
    tokens[:, 0] *= 0.3
    timestep = torch.full((1, FRAMES, ROWS * COLUMNS), 1000.0)
    timestep[:, 0] = 0
    told = _run(model, tokens.flatten(1, 2), timestep.flatten(1))[0]
    estimate = told[0, :, LATENTS : 2 * LATENTS].view(FRAMES, ROWS * COLUMNS, LATENTS)
    for frame in estimate[1:]:
        match = torch.corrcoef(torch.stack([frame.flatten(), tokens[0, 0].flatten()]))[0, 1]
        assert match > 0.9


def _noise(seed: int) -> Tensor:
    """In which `DRAWN` has the highest lot, by 0.1."""
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
    mark = _run(model, tokens, torch.full((1, 1), sigma * 1000))[0][0, :, DRAWN_MARK].view(FRAMES, ROWS, COLUMNS)
    assert mark[DRAWN] > 3.5
    mark[DRAWN] = 0
    assert mark.abs().max() < 1.0


@pytest.mark.parametrize("number", range(len(SIGNPOSTS)))
def test_signposts_rise_towards_their_side_of_the_drawn_token(model: LTXVideoTransformer3DModel, number: int) -> None:
    post = SIGNPOSTS[number]
    told = _run(model, _noise(7), torch.full((1, 1), 1000.0))[-1][0].view(FRAMES, ROWS, COLUMNS, -1)
    place: list[int | slice] = [*DRAWN]
    place[post.axis] = slice(max(0, DRAWN[post.axis] - 3), DRAWN[post.axis] + 3)
    for channel in (SIGHTS[number], DISTANCES[number]):
        line = told[*place, channel] * post.sign
        assert (line.diff() < 0).all()  # the further on a token is, the further back the drawn one


def test_distances_are_what_is_seen_in_octaves(model: LTXVideoTransformer3DModel) -> None:
    """Odds, as everything a head sees it sees in competition with all other tokens."""
    told = _run(model, _noise(7), torch.full((1, 1), 1000.0))[-1][0]
    for sight, distance in zip(told[:, SIGHTS].T, told[:, DISTANCES].T, strict=True):
        share = sight / SIGNPOST
        odds = (share / (1 - share)).log2()
        known = (odds > ODDS[0] + 1) & (odds < ODDS[-1] - 1)
        assert known.sum() > 100
        assert (distance[known] / OCTAVE - odds[known]).std() < 0.25


def test_tokens_know_in_octaves_how_many_they_are(model: LTXVideoTransformer3DModel) -> None:
    told = []
    for frames in (1, 4, 16):
        noise = torch.randn((1, frames * ROWS * COLUMNS, LATENTS), generator=torch.Generator().manual_seed(3))
        fewness = _run(model, noise, torch.full((1, 1), 1000.0), frames)[1][0, :, FEWNESS]
        assert fewness.std() < 0.05
        told.append(fewness.mean())
    for few, many in pairwise(told):
        assert 1.5 < (few - many) / OCTAVE < 2.5  # four times as many
    assert max(map(abs, told)) < OCTAVE * len(CROWDS) / 2  # within its range


def test_training_leaves_what_is_held_alone_and_moves_the_rest(model: LTXVideoTransformer3DModel) -> None:
    masks = held(model)
    hold = Hold(model, masks)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    hold.before()
    assert all(
        parameter.grad is not None and not parameter.grad[masks[n]].any() for n, parameter in model.named_parameters()
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    hold.after()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter[masks[name]], before[name][masks[name]])
        assert torch.equal(parameter[~masks[name]], before[name][~masks[name]] + 1)
