"""One forward of LTX-Video's transformer, over the weights of diffusers' LTXVideoTransformer3DModel.

The same numbers as the module's own forward, without what it computes again and again:
- the text's keys and values do not depend on the noise level: once per request, not once per step;
- the text is not padded, so its attention needs no mask;
- the modulation is computed for the two to four distinct noise levels of a step, not for each token;
- the rotary tables are computed once per request;
- what the forwards of a step have in common is computed once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import LTXVideoTransformer3DModel
from diffusers.models.transformers.transformer_ltx import LTXAttention, LTXVideoTransformerBlock
from torch.nn import functional

from keyreel.recipes import StgMode

KeyValue = tuple[torch.Tensor, torch.Tensor]
Rotary = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Levels:
    """Noise levels of a step: `values` (K,) are the distinct sigmas, `index` (N,) says which one each token has."""

    values: torch.Tensor
    index: torch.Tensor

    @classmethod
    def of(cls, sigmas: torch.Tensor) -> "Levels":
        """sigmas: (N,), one per token."""
        values, index = torch.unique(sigmas, return_inverse=True)
        return cls(values, index)

    def to(self, device: torch.device) -> "Levels":
        return Levels(self.values.to(device), self.index.to(device))

    def spread(self, per_level: torch.Tensor) -> torch.Tensor:
        """(K, D) -> (1, N, D), or (1, 1, D) when all tokens have one level."""
        if len(per_level) == 1:
            return per_level[None]
        return per_level[self.index][None]


@dataclass(frozen=True, slots=True)
class Forward:
    """One prediction of a step: under which prompt, and which blocks are perturbed in which way."""

    text: list[KeyValue]
    perturbed: tuple[int, ...] = ()
    mode: StgMode | None = None

    def mode_at(self, block: int) -> StgMode | None:
        return self.mode if block in self.perturbed else None


def rotary(transformer: LTXVideoTransformer3DModel, coordinates: torch.Tensor, frame_rate: int) -> Rotary:
    """Cosine and sine (1, N, D) in fp32 for coordinates (3, N) in frames and pixels."""
    seconds = coordinates.clone()
    seconds[0] = seconds[0] * (1.0 / frame_rate)
    cosine, sine = transformer.rope(seconds, video_coords=seconds[None])
    return cosine, sine


def text_key_values(transformer: LTXVideoTransformer3DModel, embedding: torch.Tensor) -> list[KeyValue]:
    """Keys and values (1, L, D) of a prompt's embedding (1, L, E) for each block's cross-attention."""
    text = transformer.caption_projection(embedding)
    return [
        (block.attn2.norm_k(block.attn2.to_k(text)), block.attn2.to_v(text)) for block in transformer.transformer_blocks
    ]


def velocities(
    transformer: LTXVideoTransformer3DModel,
    tokens: torch.Tensor,
    levels: Levels,
    table: Rotary,
    forwards: Sequence[Forward],
) -> list[torch.Tensor]:
    """Predicted velocities (noise - data) of tokens (1, N, C), each at its own noise level. In the dtype of `tokens`.

    The forwards go through the blocks side by side, so that a block's weights are needed once. What two of them have
    in common, as a perturbed one has up to its first perturbed block, is computed once.
    """
    hidden = transformer.proj_in(tokens)
    modulation, embedded = transformer.time_embed(levels.values * 1000, hidden_dtype=hidden.dtype)
    states = [hidden for _ in forwards]
    for index, block in enumerate(transformer.transformer_blocks):
        known: dict[object, torch.Tensor] = {}
        following = []
        for state, forward in zip(states, forwards, strict=True):
            mode = forward.mode_at(index)
            key = id(state), id(forward.text), mode
            if key not in known:
                known[key] = _block(block, state, modulation, levels, table, forward.text[index], mode)
            following.append(known[key])
        states = following
    shift, scale = map(levels.spread, (transformer.scale_shift_table + embedded[:, None]).unbind(1))
    return [transformer.proj_out(_modulate(transformer.norm_out(state), shift, scale)) for state in states]


def _block(
    block: LTXVideoTransformerBlock,
    hidden: torch.Tensor,
    modulation: torch.Tensor,
    levels: Levels,
    table: Rotary,
    text: KeyValue,
    perturbed: StgMode | None,
) -> torch.Tensor:
    if perturbed == "transformer_block":
        return hidden
    parts = (block.scale_shift_table + torch.unflatten(modulation, 1, (6, -1))).unbind(1)
    shift_attention, scale_attention, gate_attention, shift_ff, scale_ff, gate_ff = map(levels.spread, parts)

    inputs = _modulate(block.norm1(hidden), shift_attention, scale_attention)
    attended = _self_attention(block.attn1, inputs, table, perturbed)
    hidden = torch.addcmul(hidden, attended, gate_attention)
    hidden = hidden + _attention(block.attn2, block.attn2.norm_q(block.attn2.to_q(hidden)), *text)
    changed = block.ff(_modulate(block.norm2(hidden), shift_ff, scale_ff))
    return torch.addcmul(hidden, changed, gate_ff)


def _self_attention(
    attention: LTXAttention, hidden: torch.Tensor, table: Rotary, perturbed: StgMode | None
) -> torch.Tensor:
    if perturbed:
        unattended = attention.to_v(hidden) if perturbed == "attention_values" else hidden
        projected: torch.Tensor = attention.to_out[0](unattended)
        return projected
    query = _rotate(attention.norm_q(attention.to_q(hidden)), table)
    key = _rotate(attention.norm_k(attention.to_k(hidden)), table)
    return _attention(attention, query, key, attention.to_v(hidden))


def _attention(attention: LTXAttention, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Query (1, N, D), key and value (1, M, D) -> (1, N, D), through the output projection."""
    query, key, value = (
        torch.unflatten(part, 2, (attention.heads, -1)).transpose(1, 2) for part in (query, key, value)
    )
    attended = functional.scaled_dot_product_attention(query, key, value)
    projected: torch.Tensor = attention.to_out[0](attended.transpose(1, 2).flatten(2))
    return projected


def _rotate(vectors: torch.Tensor, table: Rotary) -> torch.Tensor:
    """Rotates neighbouring pairs of channels (1, N, D), in fp32."""
    cosine, sine = table
    even, odd = torch.unflatten(vectors.float(), 2, (-1, 2)).unbind(-1)
    turned = torch.stack((-odd, even), dim=-1).flatten(2)
    return torch.addcmul(vectors.float() * cosine, turned, sine).to(vectors.dtype)


def _modulate(hidden: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return torch.addcmul(shift, hidden, 1 + scale)
