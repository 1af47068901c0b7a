"""Memory plans: which weights stay on the device, and which only come for their turn. Arithmetic alone; needs no torch.

A model is laid out for a request: what the request's size takes is set aside, and the rest of the device's memory is
filled with weights. All plans compute the same numbers, so the video does not depend on them.

What a request takes was counted on this engine's own operations, by shape (tests/engine/test_plans.py counts again);
what kernels and allocators take on top is an allowance.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from keyreel.canvas import Grid, Size, drawn_frames, latent_shape, pass_sizes
from keyreel.checkpoint import Parameters
from keyreel.job import Job

GIB = 2**30

TOKEN_VALUES = 26
"""Values of the model's width that a token takes in one forward."""
TABLE_VALUES = 2
"""Of the same width, but always in fp32: a token's rotary tables."""
DECODER_FRAMES = 100
"""Frames at the autoencoder's finest layer that decoding holds at once, however many there are in the video."""
ENCODER_FRAMES = 112
"""The same for encoding; the pixels of the clip come on top."""
CLIP_VALUES = 9
"""Values per pixel and frame of a clip: three channels, and two copies while they are converted."""
PROMPT_TOKENS = 256
ALLOWANCE = GIB // 2
SLACK = 1.1


@dataclass(frozen=True, slots=True)
class Plan:
    """text: the text encoder's blocks stay on the device. blocks: how many of the transformer's do."""

    text: bool
    blocks: int


LEAST = Plan(text=False, blocks=0)
"""Keeps nothing on the device that can come for its turn."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A request's size: tokens in one forward, pixels of one drawn frame, frames of the longest clip, LoRA weights."""

    tokens: int
    pixels: int
    clip: int = 1
    adapters: int = 0


@dataclass(frozen=True, slots=True)
class ModelSize:
    """What is laid out. weight: bytes of a weight in the type that is computed in.

    int8: the transformer's blocks rest in one byte per weight and are made into that type for their turn.
    """

    parameters: Parameters
    weight: int
    int8: bool = False

    @property
    def resting(self) -> int:
        """Bytes of one weight of the transformer's blocks that is not at work."""
        return 1 if self.int8 else self.weight


REFERENCE = Workload(tokens=12 * 23 * 40 + 2 * 23 * 40, pixels=1280 * 736)
"""720p, 89 frames, and two pictures after the first frame."""


def workload(job: Job, grid: Grid) -> Workload:
    """The largest pass of a job."""
    size = max(pass_sizes(job.size, grid, job.sampling.recipe), key=_pixels)
    frames, height, width = latent_shape(size, drawn_frames(job.frames, grid), grid)
    # A picture becomes one latent frame of extra tokens, a clip two.
    extra = sum(min(len(pinned.pixels), 2) for pinned in job.conditions if pinned.start)
    return Workload(
        tokens=(frames + extra) * height * width,
        pixels=_pixels(size),
        clip=max((len(pinned.pixels) for pinned in job.conditions), default=1),
        adapters=sum(file.path.stat().st_size for file in job.adapters) // 2,
    )


def ladder(parameters: Parameters) -> Iterator[Plan]:
    """All plans, from the one that moves nothing to the one that keeps least on the device."""
    count = parameters.transformer.blocks
    yield Plan(text=True, blocks=count)
    for blocks in range(count, -1, -1):
        yield Plan(text=False, blocks=blocks)


def choose(model: ModelSize, work: Workload, free: int) -> Plan | None:
    """The first plan that fits into so many bytes, if one does."""
    return next((plan for plan in ladder(model.parameters) if needed(plan, model, work) <= free), None)


def after(plan: Plan, parameters: Parameters) -> Plan | None:
    """What to try when a plan turned out not to fit: a step that is worth it."""
    if plan.text:
        return Plan(text=False, blocks=parameters.transformer.blocks)
    return Plan(text=False, blocks=plan.blocks // 2) if plan.blocks else None


def needed(plan: Plan, model: ModelSize, work: Workload) -> int:
    """Bytes of the device at the worst moment of a request."""
    return held(plan, model) + int(SLACK * _moment(plan, model, work)) + ALLOWANCE


def held(plan: Plan, model: ModelSize) -> int:
    """Bytes of the weights that stay on the device."""
    transformer, text = model.parameters.transformer, model.parameters.text_encoder
    always = transformer.rest + model.parameters.vae + text.rest + plan.text * text.blocks * text.block
    return always * model.weight + plan.blocks * transformer.block * model.resting


def streamed(plan: Plan, model: ModelSize) -> int:
    """Bytes of the weights that rest in main memory."""
    transformer, text = model.parameters.transformer, model.parameters.text_encoder
    blocks = (transformer.blocks - plan.blocks) * transformer.block * model.resting
    return blocks + (not plan.text) * text.blocks * text.block * model.weight


def describe(plan: Plan, parameters: Parameters) -> str:
    """For people: `the text encoder and 15 of 48 transformer blocks stream`, in and out of the device."""
    if plan.text:
        return "everything stays"
    away = parameters.transformer.blocks - plan.blocks
    if not away:
        return "the text encoder streams"
    return f"the text encoder and {away} of {parameters.transformer.blocks} transformer blocks stream"


def _moment(plan: Plan, model: ModelSize, work: Workload) -> float:
    """Bytes beside the weights that stay: the largest of the stages."""
    parameters, weight = model.parameters, model.weight
    prompts = 2 * 2 * PROMPT_TOKENS * parameters.transformer.blocks * parameters.width * weight
    tables = work.tokens * parameters.width * TABLE_VALUES * 4
    token = parameters.width * TOKEN_VALUES * weight
    denoising = work.tokens * token + _at_work(plan, model)
    reading = 0 if plan.text else 2 * parameters.text_encoder.block * weight
    decoding = work.pixels * parameters.detail * DECODER_FRAMES * weight
    encoding = work.pixels * (parameters.detail * ENCODER_FRAMES + CLIP_VALUES * work.clip) * weight
    return prompts + tables + work.adapters * weight + max(denoising, reading, decoding, encoding)


def _at_work(plan: Plan, model: ModelSize) -> int:
    """Bytes of the transformer blocks that are computed with, or on their way, and do not stay."""
    transformer = model.parameters.transformer
    visiting = 2 * transformer.block * model.resting if plan.blocks < transformer.blocks else 0
    # A block in the type that is computed in, and its largest matrix (a quarter of it) in fp32 on the way there.
    dense = transformer.block * (model.weight + 1) if model.int8 else 0
    return visiting + dense


def _pixels(size: Size) -> int:
    return size.width * size.height
