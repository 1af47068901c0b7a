"""One forward of LTX-Video's transformer, over the weights of diffusers' LTXVideoTransformer3DModel.

It gives the numbers of the module's own forward, but avoids repeated computation:
- The text's keys and values do not depend on the noise level: they are computed once per request, not once per step.
- The text is not padded, so its attention needs no mask.
- The modulation is computed for the two to four distinct noise levels of a step, not for each token.
- The rotary tables are computed once per request.
- What the forwards of a step have in common is computed once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import LTXVideoTransformer3DModel
from diffusers.models.transformers.transformer_ltx import LTXAttention, LTXVideoTransformerBlock
from torch.nn import functional
from torch.nn.attention import sdpa_kernel

from keyreel.engine.devices import attention_backends
from keyreel.engine.ranks import Split
from keyreel.video.recipes import StgMode

KeyValue = tuple[torch.Tensor, torch.Tensor]
Rotary = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Levels:
    """The noise levels of a step. values: (K,) the distinct sigmas. index: (N,) the position of each token's sigma."""

    values: torch.Tensor
    index: torch.Tensor

    @classmethod
    def of(cls, sigmas: torch.Tensor) -> "Levels":
        """Makes the levels of sigmas (N,), one per token."""
        values, index = torch.unique(sigmas, return_inverse=True)
        return cls(values, index)

    def to(self, device: torch.device) -> "Levels":
        return Levels(self.values.to(device), self.index.to(device))

    def spread(self, per_level: torch.Tensor) -> torch.Tensor:
        """Gives each token the row of its level: (K, D) -> (1, N, D), or (1, 1, D) when all tokens share one level."""
        if len(per_level) == 1:
            return per_level[None]
        return per_level[self.index][None]


@dataclass(frozen=True, slots=True)
class Forward:
    """One prediction of a step. text: its prompt. perturbed: the blocks that are perturbed. mode: how."""

    text: list[KeyValue]
    perturbed: tuple[int, ...] = ()
    mode: StgMode | None = None

    def mode_at(self, block: int) -> StgMode | None:
        return self.mode if block in self.perturbed else None


def rotary(transformer: LTXVideoTransformer3DModel, coordinates: torch.Tensor, frame_rate: int) -> Rotary:
    """Returns the rotary tables, cosine and sine (1, N, D) in fp32, for coordinates (3, N) in frames and pixels."""
    seconds = coordinates.clone()
    seconds[0] = seconds[0] * (1.0 / frame_rate)
    cosine, sine = transformer.rope(seconds, video_coords=seconds[None])
    return cosine, sine


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
    table: Rotary,
    forwards: Sequence[Forward],
    split: Split | None = None,
) -> list[torch.Tensor]:
    """Predicts the velocities (noise - data) of tokens (1, N, C), each at its noise level. In the dtype of `tokens`.

    split: how several ranks share the work; the table is then of this rank's tokens. Each rank predicts the velocities
    of its team's forwards for its tokens; then each gets all of them.

    All forwards pass through a block before the next block runs, so its weights are needed once. Common parts are
    computed once: a perturbed forward equals the plain one up to its first perturbed block.
    """
    split = split or Split((tokens.shape[1],), 0)
    forwards = forwards[split.own(len(forwards))]
    levels = Levels(levels.values, split.cut(levels.index, 0))
    hidden = transformer.proj_in(split.cut(tokens, 1))
    modulation, embedded = transformer.time_embed(levels.values * 1000, hidden_dtype=hidden.dtype)
    states = [hidden for _ in forwards]
    for index, block in enumerate(transformer.transformer_blocks):
        computed: dict[object, torch.Tensor] = {}
        next_states = []
        for state, forward in zip(states, forwards, strict=True):
            mode = forward.mode_at(index)
            key = id(state), id(forward.text), mode
            if key not in computed:
                computed[key] = _block(block, state, modulation, levels, table, forward.text[index], mode, split)
            next_states.append(computed[key])
        states = next_states
    shift, scale = map(levels.spread, (transformer.scale_shift_table + embedded[:, None]).unbind(1))
    return split.joined(
        [transformer.proj_out(_modulate(transformer.norm_out(state), shift, scale)) for state in states]
    )


def _block(
    block: LTXVideoTransformerBlock,
    hidden: torch.Tensor,
    modulation: torch.Tensor,
    levels: Levels,
    table: Rotary,
    text: KeyValue,
    perturbed: StgMode | None,
    split: Split,
) -> torch.Tensor:
    if perturbed == "transformer_block":
        return hidden
    parts = (block.scale_shift_table + torch.unflatten(modulation, 1, (6, -1))).unbind(1)
    shift_attention, scale_attention, gate_attention, shift_ff, scale_ff, gate_ff = map(levels.spread, parts)

    inputs = _modulate(block.norm1(hidden), shift_attention, scale_attention)
    attended = _self_attention(block.attn1, inputs, table, perturbed, split)
    hidden = torch.addcmul(hidden, attended, gate_attention)
    hidden = hidden + _cross_attention(block.attn2, hidden, text)
    changed = block.ff(_modulate(block.norm2(hidden), shift_ff, scale_ff))
    return torch.addcmul(hidden, changed, gate_ff)


def _self_attention(
    attention: LTXAttention, hidden: torch.Tensor, table: Rotary, perturbed: StgMode | None, split: Split
) -> torch.Tensor:
    if perturbed:
        return _project(attention, attention.to_v(hidden) if perturbed == "attention_values" else hidden)
    query = _rotate(attention.norm_q(attention.to_q(hidden)), table)
    key = _rotate(attention.norm_k(attention.to_k(hidden)), table)
    query, key, value = split.to_heads(attention.heads, query, key, attention.to_v(hidden))
    attended = _attend(query, key, value, split.heads(attention.heads))
    return _project(attention, split.to_tokens(attention.heads, attended))


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


def _rotate(vectors: torch.Tensor, table: Rotary) -> torch.Tensor:
    """Rotates neighbouring pairs of channels (1, N, D), in fp32."""
    cosine, sine = table
    even, odd = torch.unflatten(vectors.float(), 2, (-1, 2)).unbind(-1)
    rotated = torch.stack((-odd, even), dim=-1).flatten(2)
    return torch.addcmul(vectors.float() * cosine, rotated, sine).to(vectors.dtype)


def _modulate(hidden: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return torch.addcmul(shift, hidden, 1 + scale)
