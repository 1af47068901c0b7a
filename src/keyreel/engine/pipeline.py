"""The story of one video, top to bottom."""

from collections.abc import Generator, Iterator, Sequence
from itertools import islice

import torch

from keyreel.canvas import drawn_frames, drawn_size, latent_shape, margins
from keyreel.engine import latents, noise
from keyreel.engine.adapters import attached, read_adapter
from keyreel.engine.autoencoder import decode
from keyreel.engine.conditions import TokenSequence, encode_condition, token_sequence
from keyreel.engine.denoise import Denoiser
from keyreel.engine.latents import LatentShape
from keyreel.engine.models import Model
from keyreel.engine.prompt import MAX_TOKENS, Text
from keyreel.engine.schedule import linear_quadratic
from keyreel.engine.transformer import rotary, text_key_values
from keyreel.events import Event, Frames, Notice, Stage, Step
from keyreel.job import Job

FRAMES_PER_EVENT = 8


@torch.inference_mode()
def run(model: Model, job: Job) -> Generator[Event]:
    """Makes the video of `job` and yields what happens, the finished frames among it.

    Can be stopped after any event by closing the iterator. However it ends, the model is as it was before.
    """
    adapters = [read_adapter(file.path, model.transformer, file.scale, file.loc, file.name) for file in job.adapters]
    size = drawn_size(job.size, model.grid)
    shape = latent_shape(size, drawn_frames(job.frames, model.grid), model.grid)

    texts = [model.prompts.encode(prompt) for prompt in _prompts(job)]
    yield from _cut_prompts(texts)

    yield Stage("conditions", len(job.conditions))
    pins = []
    for condition in job.conditions:
        pins.append(encode_condition(model.vae, condition, size))
        yield Step(len(pins))
    sequence = token_sequence(pins, shape, model.transformer.config.in_channels, model.grid, job.seed)

    yield Stage("denoise", job.steps)
    tokens = sequence.tokens.to(model.device)
    with attached(model.transformer, adapters):
        denoiser = _denoiser(model, job, sequence, texts)
        for done, tokens in denoiser.steps(tokens):  # noqa: B007, B020 - the last step's tokens are what comes of it
            yield Step(done)

    yield Stage("decode", job.frames)
    yield from _show(_decoded(model, job, latents.unpack(tokens[:, sequence.extra :], shape)), job)


def _prompts(job: Job) -> tuple[str, ...]:
    """Without guidance the negative prompt has no part in the video."""
    return (job.prompt, job.negative_prompt) if job.sampling.guidance_scale > 1 else (job.prompt,)


def _cut_prompts(texts: Sequence[Text]) -> Iterator[Notice]:
    for name, text in zip(("prompt", "negative prompt"), texts, strict=False):
        if text.is_cut:
            yield Notice(
                f"The {name} is longer than the model reads; what follows its first {MAX_TOKENS} tokens is ignored."
            )


def _denoiser(model: Model, job: Job, sequence: TokenSequence, texts: Sequence[Text]) -> Denoiser:
    key_values = [text_key_values(model.transformer, text.embedding) for text in texts]
    return Denoiser(
        transformer=model.transformer,
        sequence=sequence,
        table=rotary(model.transformer, sequence.coordinates.to(model.device), job.frame_rate),
        positive=key_values[0],
        negative=key_values[1] if len(key_values) > 1 else None,
        sigmas=linear_quadratic(job.steps),
        guidance_scale=job.sampling.guidance_scale,
        condition_noise_scale=job.sampling.condition_noise_scale,
        seed=job.seed,
    )


def _decoded(model: Model, job: Job, z: torch.Tensor) -> Iterator[torch.Tensor]:
    """Latents (1, C, F, H, W) to frames (height, width, 3) uint8 of the user's size, on the CPU.

    A little noise goes into the latents first; the decoder is told its level and replaces it by detail.
    """
    shape: LatentShape = (z.shape[2], z.shape[3], z.shape[4])
    if model.vae.config.timestep_conditioning:
        fresh = noise.draw(job.seed, "decode", 0, (1, z[0, 0].numel(), z.shape[1])).to(z.device)
        z = z.lerp(latents.unpack(fresh, shape), job.sampling.decode_noise_scale)
    z = latents.denormalise(z, model.vae).to(model.vae.dtype)
    left, top = margins(drawn_size(job.size, model.grid), job.size)
    for frame in islice(decode(model.vae, z, job.sampling.decode_timestep), job.frames):
        inner = frame[0, :, top : top + job.size.height, left : left + job.size.width]
        yield ((inner.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu()


def _show(frames: Iterator[torch.Tensor], job: Job) -> Iterator[Event]:
    """Frames in playing order, a few at a time; a reversed video can only be shown once it is complete."""
    if job.reverse:
        whole = []
        for frame in frames:
            whole.append(frame)
            yield Step(len(whole))
        frames = reversed(whole)
    done = 0
    while batch := list(islice(frames, FRAMES_PER_EVENT)):
        done += len(batch)
        yield Frames(torch.stack(batch).numpy())
        if not job.reverse:
            yield Step(done)
