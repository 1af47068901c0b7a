"""The pipeline of one video: prompts, conditions, denoising, decoding."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from keyreel.checkpoints.memory import PROMPT_TOKENS, Workload, workload
from keyreel.engine import latents, noise
from keyreel.engine.adapters import Adapter, attached
from keyreel.engine.autoencoder import decode
from keyreel.engine.conditions import (
    PinnedLatents,
    TokenSequence,
    encode_condition,
    initial_noise,
    resized,
    token_sequence,
)
from keyreel.engine.denoise import Denoiser, Pins
from keyreel.engine.latents import LatentShape
from keyreel.engine.models import Model
from keyreel.engine.preview import is_due, preview, without_margins
from keyreel.engine.prompt import Text
from keyreel.engine.ranks import Split, teams_for
from keyreel.engine.schedule import guidance_per_step, noise_levels
from keyreel.engine.transformer import KeyValue, rotary, text_key_values
from keyreel.engine.upsample import upsample
from keyreel.errors import RequestError
from keyreel.video.canvas import Size, drawn_frames, drawn_size, latent_shape, margins, pass_sizes
from keyreel.video.events import Checkpoint, Event, Frames, Notice, Preview, Stage, StageName, Step
from keyreel.video.job import Job
from keyreel.video.recipes import DISTILLED, DISTILLED_STEPS, Guidance, Pass, Recipe, recipe_of

FRAMES_PER_EVENT = 8
NAMED_WORDS = 8
PASSES: tuple[StageName, ...] = ("denoise", "refine")


@dataclass(frozen=True, slots=True)
class Drawing:
    """What rank 0 tells the other ranks to draw: the arguments of `draw`, on the CPU, and the size of the work.

    They get the prompts and the conditions encoded, so they need neither pixels nor the text encoder, and cannot fail
    at what rank 0 has done.
    """

    job: Job
    recipe: Recipe
    texts: list[Text]
    pins: Sequence[Sequence[PinnedLatents]]
    work: Workload
    resume: Checkpoint | None


@torch.inference_mode()
def run(model: Model, job: Job, resume: Checkpoint | None = None) -> Generator[Event]:
    """Makes the video of `job`. Yields events, among them the finished frames.

    resume: a checkpoint of an earlier run of the same job, on a model and a device of the same kind.
    Closing the iterator stops it after any event. It always leaves the model as it was.
    """
    recipe = _recipe(model, job)
    yield from _pass_notices(job, recipe)
    adapters = read_adapters(model, job)
    texts = [model.prompts.encode(prompt) for prompt in _prompts(job, recipe)]
    yield from _text_notices(texts)

    pins = yield from encode_conditions(model, job)
    ordered = partial(order, model, job, recipe, texts, pins, resume)
    with attached(model.transformer, adapters), model.group.drawing(ordered):
        z = yield from draw(model, job, recipe, texts, pins, resume)

    yield Stage("decode", job.frames)
    yield from _frame_events(_decode(model, job, z), job)


def work_of(model: Model, job: Job) -> Workload:
    """Returns the size of the work that each rank of the model does for a job."""
    recipe, layers = _recipe(model, job), len(model.transformer.transformer_blocks)
    steps = (guidance for one_pass in recipe.passes for guidance in _guidance(model, recipe, one_pass))
    teams = max(teams_for(guidance, layers, model.ranks) for guidance in steps)
    return workload(job, model.grid, model.ranks // teams)


def read_adapters(model: Model, job: Job) -> list[Adapter]:
    """Reads the job's LoRAs. Raises RequestError if one does not fit."""
    adapters = [model.adapters.read(file, model.transformer) for file in job.adapters]
    if job.sampling.recipe in DISTILLED and model.distilled_lora:
        adapters.insert(0, model.distilled_lora)
    return adapters


def order(
    model: Model,
    job: Job,
    recipe: Recipe,
    texts: Sequence[Text],
    pins: Sequence[Sequence[PinnedLatents]],
    resume: Checkpoint | None,
) -> Drawing:
    """Returns what the other ranks need to draw along with this one."""
    work = work_of(model, job)
    job = replace(job, conditions=(), previews=False, checkpoints=False)
    if resume:
        resume = replace(resume, tokens=partial(_given, resume.tokens()))
    return Drawing(job, recipe, [text.to(torch.device("cpu")) for text in texts], pins, work, resume)


def _recipe(model: Model, job: Job) -> Recipe:
    sampling = job.sampling
    if obstacle := model.capabilities.obstacle(sampling.recipe):
        raise RequestError.at(("recipe",), obstacle, "feature_not_supported")
    distilled = model.capabilities.distilled
    return recipe_of(sampling.recipe, job.steps, sampling.guidance_scale, distilled=distilled, passes=job.passes)


def _prompts(job: Job, recipe: Recipe) -> tuple[str, ...]:
    """Returns the prompts to encode. The negative prompt is left out when no step uses it."""
    is_guided = any(guidance.scale > 1 for one_pass in recipe.passes for _, guidance in one_pass.guidance)
    return (job.prompt, job.negative_prompt) if is_guided else (job.prompt,)


def _pass_notices(job: Job, recipe: Recipe) -> Iterator[Notice]:
    """Says so when a distilled model takes fewer steps than the passes that the client asked for."""
    asked = max(job.passes.first, job.passes.second) if job.passes else 0
    if asked > max(one_pass.steps for one_pass in recipe.passes):
        yield Notice(
            f"The model is distilled to {DISTILLED_STEPS} noise levels, so no pass takes more than that many steps."
        )


def _text_notices(texts: Sequence[Text]) -> Iterator[Notice]:
    for name, text in zip(("prompt", "negative prompt"), texts, strict=False):
        if text.is_cut:
            yield Notice(
                f"The {name} is longer than the model can read: only its first {PROMPT_TOKENS} tokens are used."
            )
    if texts[0].unknown:
        yield Notice(f"The model does not know these words of the prompt: {_listed(texts[0].unknown)}.")


def _listed(words: Sequence[str]) -> str:
    """Joins words, the first few of many."""
    more = len(words) - NAMED_WORDS
    return ", ".join(words[:NAMED_WORDS]) + (f" and {more} more" if more > 0 else "")


def encode_conditions(model: Model, job: Job) -> Generator[Event, None, list[list[PinnedLatents]]]:
    """Encodes the conditions for each pass, at its size. Returns one list per pass."""
    sizes = pass_sizes(job.size, model.grid, job.sampling.recipe)
    drawn = drawn_size(job.size, model.grid)
    yield Stage("conditions", len(job.conditions) * len(sizes))
    pins: list[list[PinnedLatents]] = [[] for _ in sizes]
    for condition in job.conditions:
        for size, pinned in zip(sizes, pins, strict=True):
            pinned.append(encode_condition(model.vae, condition, drawn, size))
            yield Step(sum(map(len, pins)))
    return pins


def draw(
    model: Model,
    job: Job,
    recipe: Recipe,
    texts: Sequence[Text],
    pins: Sequence[Sequence[PinnedLatents]],
    resume: Checkpoint | None = None,
) -> Generator[Event, None, torch.Tensor]:
    """Runs the passes, each on the result of the one before. Returns latents (1, C, F, H, W) on the model's device.

    With `resume` it skips the passes and steps that the checkpoint contains.
    """
    key_values = text_key_values(model.transformer, [text.embedding for text in texts])
    sizes = pass_sizes(job.size, model.grid, job.sampling.recipe)
    z = None
    for index in range(resume.index if resume else 0, len(recipe.passes)):
        stage, one_pass, size = PASSES[index], recipe.passes[index], sizes[index]
        if z is not None:
            yield Stage("upsample")
            z = _upsample(model, job, z)
        seed = noise.fork(job.seed, stage) if index else job.seed
        sigmas = noise_levels(one_pass)
        # A resumed pass has no z. It reads only the tokens of pinned pictures, and z has no part in those.
        sequence = token_sequence(pins[index], _start(model, job, size, z, sigmas[0], seed), model.grid, seed)
        denoiser = _denoiser(model, job, recipe, one_pass, sequence, key_values, seed)
        steps, shape = len(sigmas) - 1, _shape(model, job, size)
        tokens, skipped = sequence.tokens.to(model.device), 0
        if resume and index == resume.index:
            tokens, skipped = torch.from_numpy(resume.tokens()).to(model.device), resume.step
        yield Stage(stage, steps, skipped)
        for done, tokens, clean in denoiser.steps(tokens, skipped):  # noqa: B020 - the last step's tokens are the result
            if job.checkpoints:
                yield Checkpoint(index, done, partial(_copied, tokens))
            yield Step(done)
            if job.previews and is_due(done, steps):
                yield _preview(model, job, latents.unpack(clean[:, sequence.extra :], shape))
        z = latents.unpack(tokens[:, sequence.extra :], shape)
    assert z is not None, "a recipe has passes"  # noqa: S101
    return z


def _given(tokens: NDArray[np.float32]) -> NDArray[np.float32]:
    return tokens


def _copied(tokens: torch.Tensor) -> NDArray[np.float32]:
    copied: NDArray[np.float32] = tokens.cpu().numpy()
    return copied


def _shape(model: Model, job: Job, size: Size) -> LatentShape:
    return latent_shape(size, drawn_frames(job.frames, model.grid), model.grid)


def _upsample(model: Model, job: Job, z: torch.Tensor) -> torch.Tensor:
    assert model.upsampler is not None, "checked at the start"  # noqa: S101
    return upsample(model.upsampler, z, model.vae, job.sampling.adain)


def _start(model: Model, job: Job, size: Size, z: torch.Tensor | None, sigma: float, seed: int) -> torch.Tensor:
    """Returns the start of a pass, on the CPU: noise or, in a later pass, `z` noised to the level `sigma`."""
    fresh = initial_noise(_shape(model, job, size), model.transformer.config.in_channels, seed)
    return fresh if z is None else z.cpu().lerp(fresh, sigma)


def _denoiser(
    model: Model,
    job: Job,
    recipe: Recipe,
    one_pass: Pass,
    sequence: TokenSequence,
    key_values: Sequence[list[KeyValue]],
    seed: int,
) -> Denoiser:
    @lru_cache(maxsize=1)
    def table(split: Split) -> torch.Tensor:
        return rotary(model.transformer, split.cut(sequence.coordinates, 1).to(model.device), job.frame_rate)

    return Denoiser(
        transformer=model.transformer,
        pins=Pins.of(sequence, model.device),
        table=table,
        positive=key_values[0],
        negative=key_values[1] if len(key_values) > 1 else [],
        sigmas=noise_levels(one_pass),
        guidance=_guidance(model, recipe, one_pass),
        condition_noise_scale=job.sampling.condition_noise_scale,
        seed=seed,
        stg_mode=job.sampling.stg_mode,
        cfg_star=recipe.cfg_star,
        stochastic=job.sampling.stochastic_sampling,
        group=model.group,
    )


def _guidance(model: Model, recipe: Recipe, one_pass: Pass) -> tuple[Guidance, ...]:
    return guidance_per_step(one_pass, recipe.depth, len(model.transformer.transformer_blocks))


def _preview(model: Model, job: Job, clean: torch.Tensor) -> Preview:
    whole = preview(model.vae, clean, job.sampling.decode_timestep)
    pixels = without_margins(whole, drawn_size(job.size, model.grid), job.size)
    return Preview(pixels[::-1] if job.reverse else pixels)


def _decode(model: Model, job: Job, z: torch.Tensor) -> Iterator[torch.Tensor]:
    """Decodes latents (1, C, F, H, W). Yields a few frames at a time, as `_pixels` returns them.

    A timestep-conditioned decoder gets slightly noisy latents and the noise level, and replaces the noise with detail.
    """
    shape: LatentShape = (z.shape[2], z.shape[3], z.shape[4])
    if model.vae.config.timestep_conditioning:
        fresh = noise.draw(job.seed, "decode", 0, (1, z[0, 0].numel(), z.shape[1])).to(z.device)
        z = z.lerp(latents.unpack(fresh, shape), job.sampling.decode_noise_scale)
    if job.sampling.tone_map:
        z = latents.tone_mapped(z, job.sampling.tone_map)
    z = latents.denormalise(z, model.vae).to(model.vae.dtype)
    frames = islice(decode(model.vae, z, job.sampling.decode_timestep), job.frames)
    convert = partial(_pixels, drawn=drawn_size(job.size, model.grid), size=job.size)
    if z.device.type == "cpu":  # where frames that wait take less memory as bytes
        yield from _joined(map(convert, frames))
    else:  # where one conversion and one copy of several frames take less time
        yield from map(convert, _joined(frames))


def _joined(frames: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    while batch := list(islice(frames, FRAMES_PER_EVENT)):
        yield torch.cat(batch)


def _pixels(frames: torch.Tensor, drawn: Size, size: Size) -> torch.Tensor:
    """Converts frames (n, 3, H, W) in [-1, 1] to (n, height, width, 3), uint8, of the user's size, on the CPU."""
    if frames.shape[2:] != (drawn.height, drawn.width):
        frames = resized(frames.clamp(-1, 1), drawn)
    left, top = margins(drawn, size)
    inner = frames[:, :, top : top + size.height, left : left + size.width].permute(0, 2, 3, 1)
    values = inner.float().add(1).mul_(127.5).round_().clamp_(0, 255)
    return values.to(torch.uint8, memory_format=torch.contiguous_format).cpu()


def _frame_events(batches: Iterator[torch.Tensor], job: Job) -> Iterator[Event]:
    """Yields batches of frames in playing order. A reversed video has to be complete first."""
    done = 0
    if job.reverse:
        whole = []
        for batch in batches:
            whole.append(batch.flip(0))
            done += len(batch)
            yield Step(done)
        batches = reversed(whole)
    for batch in batches:
        yield Frames(batch.numpy())
        if not job.reverse:
            done += len(batch)
            yield Step(done)
