"""One forward of LTX-Video's transformer, over the weights of diffusers' LTXVideoTransformer3DModel.

It gives the numbers of the module's own forward, but avoids repeated computation:
- The text's keys and values do not depend on the noise level: they are computed once per request, not once per step.
- The text is not padded, so its attention needs no mask.
- The modulation is computed for the two to four distinct noise levels of a step, not for each token.
- The rotary tables are computed once per request.
- What the forwards of a step have in common is computed once.
- What lies between the matrix products is fused where the device has kernels for it (`engine/kernels.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from diffusers import LTXVideoTransformer3DModel
from diffusers.models.transformers.transformer_ltx import LTXAttention, LTXVideoTransformerBlock
from torch.nn import functional
from torch.nn.attention import sdpa_kernel

from keyreel.engine import kernels_torch
from keyreel.engine.devices import attention_backends, sent
from keyreel.engine.kernels import Kernels, kernels_for
from keyreel.engine.ranks import Split
from keyreel.video.recipes import StgMode

KeyValue = tuple[torch.Tensor, torch.Tensor]
_Argument = TypeVar("_Argument")


@dataclass(frozen=True, slots=True)
class Levels:
    """The noise levels of a step. values: (K,) sigmas. index: (N,) the position of each token's sigma."""

    values: torch.Tensor
    index: torch.Tensor

    @classmethod
    def of(cls, sigmas: torch.Tensor) -> "Levels":
        """Makes the levels of sigmas (N,), one per token. Lists each once."""
        values, index = torch.unique(sigmas, return_inverse=True)
        return cls(values, index)

    def to(self, device: torch.device) -> "Levels":
        return Levels(sent(self.values, device), sent(self.index, device))

    def at_most(self, sigma: float) -> "Levels":
        """Lowers the levels above `sigma` to it. The tokens keep their positions, so several may hold one sigma."""
        return Levels(self.values.clamp(max=sigma), self.index)

    def per_token(self, values: torch.Tensor) -> torch.Tensor:
        """Gives each token the value of its level: (K,) -> (1, N, 1)."""
        return values[self.index][None, :, None]


@dataclass(frozen=True, slots=True)
class Forward:
    """One prediction of a step. text: its prompt. perturbed: the blocks that are perturbed. mode: how."""

    text: list[KeyValue]
    perturbed: tuple[int, ...] = ()
    mode: StgMode | None = None

    def mode_at(self, block: int) -> StgMode | None:
        return self.mode if block in self.perturbed else None


def rotary(transformer: LTXVideoTransformer3DModel, coordinates: torch.Tensor, frame_rate: int) -> torch.Tensor:
    """Returns the rotary table (1, N, D / 2), complex fp32, for coordinates (3, N) in frames and pixels.

    It holds one value for each pair of channels. Diffusers' tables hold a cosine and a sine for each channel.
    """
    seconds = coordinates.clone()
    seconds[0] = seconds[0] * (1.0 / frame_rate)
    cosine, sine = transformer.rope(seconds, video_coords=seconds[None])
    return torch.complex(cosine[..., ::2], sine[..., ::2])


def text_key_values(
    transformer: LTXVideoTransformer3DModel, embeddings: Sequence[torch.Tensor]
) -> list[list[KeyValue]]:
    """Returns, for each prompt's embedding (1, L, E), keys and values (1, L, D) of each block's cross-attention.

    Takes all prompts at once, so that the weights of each block are needed once.
    """
    texts = [transformer.caption_projection(embedding) for embedding in embeddings]
    by_block = [[_key_value(block.attn2, text) for text in texts] for block in transformer.transformer_blocks]
    return [list(prompt) for prompt in zip(*by_block, strict=True)]


def _key_value(attention: LTXAttention, text: torch.Tensor) -> KeyValue:
    return attention.norm_k(attention.to_k(text)), attention.to_v(text)


def velocities(
    transformer: LTXVideoTransformer3DModel,
    tokens: torch.Tensor,
    levels: Levels,
    table: torch.Tensor,
    forwards: Sequence[Forward],
    split: Split | None = None,
) -> list[torch.Tensor]:
    """Predicts the velocities (noise - data) of tokens (1, N, C), each at its noise level. In the dtype of `tokens`.

    split: how several ranks share the work; the table is then of this rank's tokens. Each rank predicts the velocities
    of its team's forwards for its tokens; then each gets all of them.

    All forwards pass through a block before the next block runs, so its weights are needed once. Common parts are
    computed once: a perturbed forward equals the plain one up to its first perturbed block, and that of the negative
    prompt up to where the first block attends to the text.
    """
    split = split or Split((tokens.shape[1],), 0)
    forwards = forwards[split.own(len(forwards))]
    levels = Levels(levels.values, split.cut(levels.index, 0))
    modulation, embedded = transformer.time_embed(levels.values * 1000, hidden_dtype=tokens.dtype)
    step = _Step(modulation, levels.index, table, split, kernels_for(tokens.device))
    states = [transformer.proj_in(split.cut(tokens, 1))] * len(forwards)
    for number, block in enumerate(transformer.transformer_blocks):
        _pass_through(block, number, states, forwards, step)
    shift, scale = (transformer.scale_shift_table + embedded[:, None]).unbind(1)
    modulated = (kernels_torch.modulate(transformer.norm_out(state), shift, scale, levels.index) for state in states)
    return split.joined([transformer.proj_out(state) for state in modulated])


@dataclass(frozen=True, slots=True)
class _Step:
    """What every block of a step uses. modulation: (K, 6 D). index: (n,) the level of each of this rank's tokens."""

    modulation: torch.Tensor
    index: torch.Tensor
    table: torch.Tensor
    split: Split
    kernels: Kernels


def _pass_through(
    block: LTXVideoTransformerBlock, number: int, states: list[torch.Tensor], forwards: Sequence[Forward], step: _Step
) -> None:
    """Replaces the state of each forward by what the block makes of it, unless the forward skips the block."""
    rows = (block.scale_shift_table + torch.unflatten(step.modulation, 1, (6, -1))).unbind(1)
    modes = {index: forward.mode_at(number) for index, forward in enumerate(forwards)}
    modes = {index: mode for index, mode in modes.items() if mode != "transformer_block"}
    texts = {index: forwards[index].text[number] for index in modes}
    _replace(states, modes, partial(_with_self_attention, block, rows[:3], step))
    _replace(states, texts, partial(_with_text_and_feed_forward, block, rows[3:], step))


def _replace(
    states: list[torch.Tensor],
    arguments: Mapping[int, _Argument],
    function: Callable[[torch.Tensor, _Argument], torch.Tensor],
) -> None:
    """Replaces the states by `function(state, argument)`. Computes once what several have in common.

    arguments: by the positions of the states to replace. The states are replaced one by one, which frees memory early.
    """
    keys = {index: (id(states[index]), id(argument)) for index, argument in arguments.items()}
    first = {key: index for index, key in reversed(keys.items())}
    for index, argument in arguments.items():
        same = first[keys[index]]
        states[index] = function(states[index], argument) if same == index else states[same]


def _with_self_attention(
    block: LTXVideoTransformerBlock,
    rows: Sequence[torch.Tensor],
    step: _Step,
    hidden: torch.Tensor,
    perturbed: StgMode | None,
) -> torch.Tensor:
    shift, scale, gate = rows
    inputs = step.kernels.norm_modulate(hidden, shift, scale, step.index, block.norm1.eps)
    return step.kernels.add_gated(hidden, _self_attention(block.attn1, inputs, perturbed, step), gate, step.index)


def _with_text_and_feed_forward(
    block: LTXVideoTransformerBlock, rows: Sequence[torch.Tensor], step: _Step, hidden: torch.Tensor, text: KeyValue
) -> torch.Tensor:
    shift, scale, gate = rows
    hidden = hidden + _cross_attention(block.attn2, hidden, text)
    inputs = step.kernels.norm_modulate(hidden, shift, scale, step.index, block.norm2.eps)
    first, _, second = block.ff.net  # a dropout lies between them, which does nothing here
    return step.kernels.add_gated(hidden, second(step.kernels.gelu(first, inputs)), gate, step.index)


def _self_attention(
    attention: LTXAttention, hidden: torch.Tensor, perturbed: StgMode | None, step: _Step
) -> torch.Tensor:
    if perturbed:
        return _project(attention, attention.to_v(hidden) if perturbed == "attention_values" else hidden)
    norms = attention.norm_q, attention.norm_k
    query, key = step.kernels.norm_rotate(attention.to_q(hidden), attention.to_k(hidden), norms, step.table)
    query, key, value = step.split.to_heads(attention.heads, query, key, attention.to_v(hidden))
    attended = _attend(query, key, value, step.split.heads(attention.heads))
    return _project(attention, step.split.to_tokens(attention.heads, attended))


def _cross_attention(attention: LTXAttention, hidden: torch.Tensor, text: KeyValue) -> torch.Tensor:
    query = attention.norm_q(attention.to_q(hidden))
    return _project(attention, _attend(query, *text, attention.heads))


def _project(attention: LTXAttention, attended: torch.Tensor) -> torch.Tensor:
    projected: torch.Tensor = attention.to_out[0](attended)
    return projected


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int) -> torch.Tensor:
    """Attention of each head: query (1, N, D), key and value (1, M, D) -> (1, N, D)."""
    query, key, value = (torch.unflatten(part, 2, (heads, -1)).transpose(1, 2) for part in (query, key, value))
    with sdpa_kernel(attention_backends(query.device), set_priority=True):
        return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
