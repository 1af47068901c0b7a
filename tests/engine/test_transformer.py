"""Compares predictions, also perturbed ones, with those of diffusers' module."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import torch
from diffusers import LTXVideoTransformer3DModel
from torch import nn

from keyreel.engine.latents import coordinates
from keyreel.engine.transformer import Forward, Levels, rotary, text_key_values, velocities
from keyreel.video.canvas import Grid
from keyreel.video.recipes import StgMode
from tests.tiny_checkpoints import randomised

SHAPE = (2, 3, 4)
LAYERS = 4
TOKENS, *TEXTS = (
    torch.randn(1, *shape, generator=torch.Generator().manual_seed(8)) for shape in ((24, 16), (5, 24), (3, 24))
)
SIGMAS = torch.tensor([0.0, 0.7]).repeat_interleave(12)
FRAMES = coordinates(SHAPE, Grid(32, 8))
MODES: tuple[StgMode, ...] = ("attention_values", "attention_skip", "transformer_block")


@pytest.fixture(scope="module")
def transformer() -> LTXVideoTransformer3DModel:
    return small_transformer(LAYERS)


def small_transformer(layers: int) -> LTXVideoTransformer3DModel:
    module = LTXVideoTransformer3DModel(
        in_channels=16,
        out_channels=16,
        num_attention_heads=2,
        attention_head_dim=16,
        cross_attention_dim=32,
        num_layers=layers,
        caption_channels=24,
    )
    return randomised(module, torch.Generator().manual_seed(7))


@torch.inference_mode()
def ours(transformer: LTXVideoTransformer3DModel, *perturbed: tuple[tuple[int, ...], StgMode]) -> list[torch.Tensor]:
    """Returns predictions for the positive prompt, the negative one, and the positive one with each perturbation."""
    positive, negative = text_key_values(transformer, TEXTS)
    forwards = [Forward(positive), Forward(negative), *(Forward(positive, *how) for how in perturbed)]
    table = rotary(transformer, FRAMES, 25)
    return velocities(transformer, TOKENS, Levels.of(SIGMAS), table, forwards)


@torch.inference_mode()
def stock(transformer: LTXVideoTransformer3DModel, text: torch.Tensor) -> torch.Tensor:
    seconds = FRAMES.clone()
    seconds[0] = seconds[0] / 25
    prediction: torch.Tensor = transformer(
        hidden_states=TOKENS,
        encoder_hidden_states=text,
        timestep=SIGMAS[None] * 1000,
        encoder_attention_mask=torch.ones(text.shape[:2]),
        video_coords=seconds[None],
        return_dict=False,
    )[0]
    return prediction


@contextmanager
def perturbed_stock(transformer: LTXVideoTransformer3DModel, blocks: tuple[int, ...], mode: StgMode) -> Iterator[None]:
    """Perturbs diffusers' module in the same way during the block."""
    with pytest.MonkeyPatch.context() as patch:
        for index in blocks:
            block = transformer.transformer_blocks[index]
            if mode == "transformer_block":
                patch.setattr(block, "forward", lambda hidden_states, **_: hidden_states)
            else:
                patch.setattr(block.attn1, "processor", _without_attention(mode))
        yield


def _without_attention(mode: StgMode) -> Callable[..., torch.Tensor]:
    def process(attention: Any, hidden: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        passed = attention.to_v(hidden) if mode == "attention_values" else hidden
        projected: torch.Tensor = attention.to_out[0](passed)
        return projected

    return process


def test_levels_list_each_noise_level_once() -> None:
    levels = Levels.of(torch.tensor([0.0, 0.5, 0.5, 0.0, 0.2]))
    assert levels.values.tolist() == pytest.approx([0.0, 0.2, 0.5])
    assert levels.per_token(torch.tensor([1.0, 2.0, 3.0])).flatten().tolist() == [1, 3, 3, 1, 2]
    assert levels.at_most(0.3).per_token(levels.at_most(0.3).values).flatten().tolist() == pytest.approx(
        [0.0, 0.3, 0.3, 0.0, 0.2]
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("blocks", [(0,), (2,), (1, 3)], ids=str)
def test_predictions_equal_diffusers_predictions(
    transformer: LTXVideoTransformer3DModel, blocks: tuple[int, ...], mode: StgMode
) -> None:
    positive, negative, perturbed = ours(transformer, (blocks, mode))
    torch.testing.assert_close(positive, stock(transformer, TEXTS[0]), rtol=0, atol=1e-5)
    torch.testing.assert_close(negative, stock(transformer, TEXTS[1]), rtol=0, atol=1e-5)
    with perturbed_stock(transformer, blocks, mode):
        theirs = stock(transformer, TEXTS[0])
    torch.testing.assert_close(perturbed, theirs, rtol=0, atol=1e-5)
    assert (perturbed - positive).abs().max() > 1e-3


def test_each_perturbation_mode_predicts_something_else(transformer: LTXVideoTransformer3DModel) -> None:
    _, _, values, skip, block = ours(transformer, *(((2,), mode) for mode in MODES))
    assert (values - skip).abs().max() > 1e-3
    assert (skip - block).abs().max() > 1e-3


def test_a_prediction_is_the_same_alone_and_with_others(transformer: LTXVideoTransformer3DModel) -> None:
    positive, *_ = ours(transformer, ((2,), "attention_values"))
    with torch.inference_mode():
        (text,) = text_key_values(transformer, TEXTS[:1])
        table = rotary(transformer, FRAMES, 25)
        (alone,) = velocities(transformer, TOKENS, Levels.of(SIGMAS), table, [Forward(text)])
    assert torch.equal(positive, alone)


def test_the_prompts_of_a_request_walk_through_the_blocks_once(transformer: LTXVideoTransformer3DModel) -> None:
    """Each walk would copy all blocks that stream."""
    blocks = Walks(transformer.transformer_blocks)
    transformer.transformer_blocks = blocks
    one, other = text_key_values(transformer, TEXTS)
    assert blocks.count == 1
    assert (len(one), len(other)) == (LAYERS, LAYERS)


class Walks(nn.ModuleList):
    """Counts how often someone begins to iterate over the blocks."""

    count = 0

    def __iter__(self) -> Iterator[nn.Module]:
        self.count += 1
        return super().__iter__()


def test_common_blocks_are_computed_once(transformer: LTXVideoTransformer3DModel) -> None:
    """A perturbed prediction shares the blocks before its first perturbed block with the positive one."""
    with counted([block.ff.net[2] for block in transformer.transformer_blocks]) as calls:
        ours(transformer, ((2,), "attention_values"))
    assert calls == [2, 2, 3, 3]


def test_prompts_share_what_the_first_block_does_before_it_attends_to_the_text(
    transformer: LTXVideoTransformer3DModel,
) -> None:
    blocks = transformer.transformer_blocks
    with counted([block.attn1.to_out[0] for block in blocks]) as calls:
        ours(transformer)
    assert calls == [1, 2, 2, 2]
    with counted([block.attn1.to_out[0] for block in blocks]) as calls:
        ours(transformer, ((0,), "attention_skip"))
    assert calls == [2, 3, 3, 3], "a perturbed block shares nothing"
    with counted([block.attn1.to_out[0] for block in blocks]) as calls:
        ours(transformer, ((0,), "transformer_block"))
    assert calls == [1, 3, 3, 3]


@contextmanager
def counted(modules: list[nn.Module]) -> Iterator[list[int]]:
    """Counts during the block how often each module is called."""
    calls = [0] * len(modules)

    def count(index: int) -> Callable[..., None]:
        def hook(*_: object) -> None:
            calls[index] += 1

        return hook

    with ExitStack() as hooks:
        for index, module in enumerate(modules):
            hooks.enter_context(module.register_forward_hook(count(index)))
        yield calls
