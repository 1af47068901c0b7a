"""Memory plans: which weights stay on the device, and which stream to it. Arithmetic only; needs no torch.

A plan reserves the memory that a request of a given size needs and fills the rest of the device with weights. All plans
compute the same numbers, so the video does not depend on the plan.

The figures below count the tensors that this engine's operations hold at once, by shape; tests/engine/test_estimates.py
checks them. ALLOWANCE and SLACK cover what kernels and allocators take on top.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from keyreel.checkpoints.checkpoint import Parameters
from keyreel.video.canvas import Grid, Size, drawn_frames, latent_shape, pass_sizes
from keyreel.video.job import Job

GIB = 2**30

TOKEN_VALUES = 14
"""Values that a token takes in one forward, in multiples of the model's width."""
TABLE_VALUES = 1
"""Values of a token's rotary table, in multiples of the model's width. Always fp32."""
DECODER_FRAMES = 80
"""Frames that decoding holds at once, counted at the autoencoder's finest layer. Independent of the video's length."""
ENCODER_FRAMES = 100
"""Frames that encoding holds at once, counted the same way. The pixels of the clip come on top."""
AUTOENCODER_BATCH = GIB // 8
"""Bytes of a convolution's input and output, at most, when the autoencoder gives it several frames at once. More would
take memory and save nothing: a call on so many bytes takes a GPU far longer than it takes to start."""
AUTOENCODER_BATCHES = 2
"""Batches of that size that the autoencoder holds beside its frames."""
CLIP_VALUES = 9
"""Values per pixel and frame of a clip: three channels, and two copies while they are converted."""
PROMPT_TOKENS = 256
"""Tokens of a prompt, at most."""
PRODUCT_ROWS = 1024
"""Tokens that a quantised layer multiplies at once."""
PRODUCT_BYTES = 36
"""Bytes of such a product's intermediate results, per token and channel of the model's width."""
ALLOWANCE = GIB // 2
"""Bytes on top of an estimate."""
SLACK = 1.1
"""Factor on a request's share of an estimate."""


@dataclass(frozen=True, slots=True)
class Plan:
    """text: whether the text encoder's blocks stay on the device. blocks: how many of the transformer's blocks stay."""

    text: bool
    blocks: int


LEAST = Plan(text=False, blocks=0)
"""The plan that streams every block."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A request's size: tokens in one forward, pixels of one drawn frame, frames of the longest clip, LoRA weights."""

    tokens: int
    pixels: int
    clip: int = 1
    adapters: int = 0


@dataclass(frozen=True, slots=True)
class ModelSize:
    """A model's weight counts and types.

    weight: bytes of a weight in the type that is computed in. quantised: the transformer's blocks multiply in eight
    bits, so their weights take one byte each.
    """

    parameters: Parameters
    weight: int
    quantised: bool = False

    @property
    def resting(self) -> int:
        """Bytes of a stored weight of the transformer's blocks."""
        return 1 if self.quantised else self.weight


REFERENCE = Workload(tokens=12 * 23 * 40 + 2 * 23 * 40, pixels=1280 * 736)
"""The workload to plan for before there is a request: 720p, 89 frames, two pictures after the first frame."""


def workload(job: Job, grid: Grid, ranks: int = 1) -> Workload:
    """Returns the size of a job's largest pass. ranks: the devices that share a forward's tokens."""
    size = max(pass_sizes(job.size, grid, job.sampling.recipe), key=_pixels)
    frames, height, width = latent_shape(size, drawn_frames(job.frames, grid), grid)
    # After frame 0, a picture becomes one latent frame of extra tokens and a clip becomes two.
    extra = sum(min(len(pinned.pixels), 2) for pinned in job.conditions if pinned.start)
    return Workload(
        tokens=ceil((frames + extra) * height * width / ranks),
        pixels=_pixels(size),
        clip=max((len(pinned.pixels) for pinned in job.conditions), default=1),
        adapters=sum(file.path.stat().st_size for file in job.adapters) // 2,
    )


def ladder(parameters: Parameters) -> Iterator[Plan]:
    """Yields all plans, from the one that streams nothing to the one that streams every block."""
    count = parameters.transformer.blocks
    yield Plan(text=True, blocks=count)
    for blocks in range(count, -1, -1):
        yield Plan(text=False, blocks=blocks)


def choose(model: ModelSize, work: Workload, free: int) -> Plan | None:
    """Returns the first plan that fits into `free` bytes, or None."""
    return next((plan for plan in ladder(model.parameters) if needed(plan, model, work) <= free), None)


def following(plan: Plan, model: ModelSize, work: Workload, free: int) -> Plan:
    """Returns the plan for the next request. It may be the present one, and is the least if none fits.

    Every change moves weights, and requests of different sizes take turns. So a plan that fits is left only for one
    that keeps the text encoder, too, or more of the transformer's blocks by an eighth of them all.
    """
    best = choose(model, work, free) or LEAST
    fits = needed(plan, model, work) <= free
    gains = best.text > plan.text or (best.blocks - plan.blocks) * 8 >= model.parameters.transformer.blocks
    return plan if fits and not gains else best


def after(plan: Plan, parameters: Parameters) -> Plan | None:
    """Returns the plan to try when `plan` did not fit, or None. Halving the blocks that stay keeps the tries few."""
    if plan.text:
        return Plan(text=False, blocks=parameters.transformer.blocks)
    return Plan(text=False, blocks=plan.blocks // 2) if plan.blocks else None


def needed(plan: Plan, model: ModelSize, work: Workload) -> int:
    """Returns the peak bytes of the device during a request."""
    return held(plan, model) + int(SLACK * _peak(plan, model, work)) + ALLOWANCE


def held(plan: Plan, model: ModelSize) -> int:
    """Returns the bytes of the weights that stay on the device."""
    transformer, text = model.parameters.transformer, model.parameters.text_encoder
    always = transformer.rest + model.parameters.vae + text.rest + plan.text * text.blocks * text.block
    return always * model.weight + plan.blocks * transformer.block * model.resting


def streamed_blocks(plan: Plan, model: ModelSize) -> int:
    """Returns the bytes of the transformer's blocks that stream from main memory."""
    transformer = model.parameters.transformer
    return (transformer.blocks - plan.blocks) * transformer.block * model.resting


def describe(plan: Plan, parameters: Parameters) -> str:
    """Returns a description for the user, such as `the text encoder and 15 of 48 transformer blocks stream`."""
    if plan.text:
        return "everything stays"
    streaming = parameters.transformer.blocks - plan.blocks
    if not streaming:
        return "the text encoder streams"
    return f"the text encoder and {streaming} of {parameters.transformer.blocks} transformer blocks stream"


def _peak(plan: Plan, model: ModelSize, work: Workload) -> float:
    """Returns the bytes that the most expensive stage takes on top of the weights that stay."""
    parameters, weight = model.parameters, model.weight
    prompts = 2 * 2 * PROMPT_TOKENS * parameters.transformer.blocks * parameters.width * weight
    tables = work.tokens * parameters.width * TABLE_VALUES * 4
    token = parameters.width * TOKEN_VALUES * weight
    denoising = work.tokens * token + _products(model) + _streaming_buffers(plan, model)
    text_encoding = 0 if plan.text else 2 * parameters.text_encoder.block * weight
    decoding = work.pixels * parameters.detail * DECODER_FRAMES * weight
    encoding = work.pixels * (parameters.detail * ENCODER_FRAMES + CLIP_VALUES * work.clip) * weight
    coding = max(decoding, encoding) + AUTOENCODER_BATCHES * AUTOENCODER_BATCH
    return prompts + tables + work.adapters * weight + max(denoising, text_encoding, coding)


def _products(model: ModelSize) -> int:
    """Returns the bytes that a layer with quantised weights takes in between."""
    if not model.quantised:
        return 0
    # The feed-forward's second layer, a quarter of the block's weights, is converted to be multiplied.
    converted = model.parameters.transformer.block // 4 * (4 + model.weight)
    return max(PRODUCT_ROWS * model.parameters.width * PRODUCT_BYTES, converted)


def _streaming_buffers(plan: Plan, model: ModelSize) -> int:
    """Returns the bytes of the transformer blocks that are on the device only while they compute or arrive."""
    transformer = model.parameters.transformer
    return 2 * transformer.block * model.resting if plan.blocks < transformer.blocks else 0


def _pixels(size: Size) -> int:
    return size.width * size.height
