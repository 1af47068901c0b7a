"""What a forward of the transformer has to compute and to move, and how long that takes a card. Arithmetic only.

Operations are a multiplication and an addition each, counted twice, as `torch.utils.flop_counter` does.
"""

from collections.abc import Iterator
from dataclasses import dataclass

TEXT_TOKENS = 256
GUIDED = 2
"""Forwards of a guided step."""

# Passes over a token's values in one block, reads and writes together, counted as values of two bytes.
PASSES = 115.0
"""Each element-wise operation on its own, all tokens at one noise level."""
LEVEL_PASSES = 16.0
"""More when the tokens have several noise levels, and each gets its own row of the modulation."""
FUSED_PASSES = 23.0
"""With a kernel each for norm and modulation, norm and rotation, and the gated sum."""
EIGHT_BITS = 10 / 14
"""The share of a block's products that `+int8` and `+fp8` multiply in eight bits: the feed-forward's second stays."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A transformer. width: values of a token between two blocks. channels: of its latents."""

    blocks: int
    width: int
    channels: int
    frequencies: int = 256

    def gemm(self, tokens: int, levels: int = 1) -> int:
        """Returns the operations of a forward in matrix products. The text's keys and values are not part of it."""
        d = self.width
        block = 28 * tokens * d**2  # six projections of d to d for the attentions, two of d to 4d for the feed-forward
        ends = 4 * tokens * self.channels * d
        modulation = 2 * levels * (self.frequencies * d + d**2 + 6 * d**2)
        return self.blocks * block + ends + modulation

    def attention(self, tokens: int, text: int = TEXT_TOKENS) -> int:
        """Returns the operations of a forward in attention: each token sees all tokens and the text."""
        return self.blocks * 4 * tokens * (tokens + text) * self.width

    def elementwise(self, tokens: int, levels: int = 1, *, fused: bool = False) -> float:
        """Returns the bytes that a forward in bf16 reads and writes outside matrix products and attention."""
        passes = FUSED_PASSES if fused else PASSES + LEVEL_PASSES * (levels > 1)
        return passes * 2 * tokens * self.width * self.blocks


THIRTEEN_B = Shape(blocks=48, width=4096, channels=128)


@dataclass(frozen=True, slots=True)
class Case:
    """A video's size. tokens: (frames x height x width) in latent cells."""

    name: str
    width: int
    height: int
    frames: int
    tokens: int


CASES = (
    Case("720p x 89", 1280, 720, 89, 12 * 23 * 40),
    Case("480p x 89", 832, 480, 89, 12 * 15 * 26),
    Case("720p x 161", 1280, 720, 161, 21 * 23 * 40),
)


@dataclass(frozen=True, slots=True)
class Card:
    """What a card is taken to do, in 10^12 operations a second and, for bandwidth, 10^12 bytes a second.

    peak: one large product in bf16, against which the ideal is counted. gemm: the model's products, for many seconds.
    """

    name: str
    peak: float
    gemm: float
    attention: float
    bandwidth: float
    int8: float
    fp8: float

    def forward_ms(self, case: Case, levels: int = 1, *, fused: bool, rate: float | None = None) -> float:
        """Returns the milliseconds of one forward of the 13B model. rate: of the products in eight bits, if any are.

        Rounding is not counted: it takes a part of the tokens at a time, which stay in the card's cache.
        """
        seconds = EIGHT_BITS / rate + (1 - EIGHT_BITS) / self.gemm if rate else 1 / self.gemm
        products = THIRTEEN_B.gemm(case.tokens, levels) * seconds
        attention = THIRTEEN_B.attention(case.tokens) / self.attention
        moved = THIRTEEN_B.elementwise(case.tokens, levels, fused=fused) / self.bandwidth
        return (products + attention + moved) / 1e9


H200 = Card("H200", peak=788, gemm=700, attention=520, bandwidth=4.3, int8=1200, fp8=1200)
RTX_4090 = Card("RTX 4090", peak=165, gemm=150, attention=140, bandwidth=0.92, int8=415, fp8=300)
CARDS = (H200, RTX_4090)


def ideal_ms(shape: Shape, tokens: int, peak: float, forwards: int = 1) -> float:
    """Returns the milliseconds of forwards that do nothing but products and attention, at `peak` x 10^12 a second."""
    return forwards * (shape.gemm(tokens) + shape.attention(tokens)) / peak / 1e9


def expected(card: Card) -> Iterator[tuple[str, ...]]:
    """Yields the rows of a table: milliseconds of a guided step that a card should take, with a head."""
    yield "guided step, ms", "ideal", "each operation alone", "fused", "int8", "fp8"
    for case in CASES:
        columns = (
            ideal_ms(THIRTEEN_B, case.tokens, card.peak),
            card.forward_ms(case, fused=False),
            card.forward_ms(case, fused=True),
            card.forward_ms(case, fused=True, rate=card.int8),
            card.forward_ms(case, fused=True, rate=card.fp8),
        )
        yield case.name, *(f"{GUIDED * milliseconds:,.0f}" for milliseconds in columns)
