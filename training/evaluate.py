"""Measures a demo model with Keyreel's engine: `python -m training.evaluate --model demo --out out/evaluation`.

Prints figures for prompts, pictures and seeds that training never saw, and writes a contact sheet of each case.
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image
from skimage.metrics import structural_similarity
from torch import Tensor

import keyreel
from keyreel.checkpoints.hub import content_sha256
from keyreel.engine.autoencoder import decode, encode
from keyreel.engine.models import Model
from keyreel.engine.pipeline import run
from keyreel.video.canvas import SIZES, Size, drawn_size, margins
from keyreel.video.events import Frames
from keyreel.video.job import AdapterFile, Condition, Job, Sampling
from training.judge import Seen, edge_steps, look, signal_to_noise
from training.pictures import HELD_OUT, photographs, random_picture
from training.scenes import COLOURS, MOTIONS, SHAPES
from training.text import NEGATIVE_PROMPT

DIRECTIONS = ("left", "right", "up", "down", "still")
JUDGED_COLOURS = [name for name in COLOURS if name != "grey"]  # grey is too near to other colours
SIZE_480, SIZE_720 = SIZES["480p", "16:9"], SIZES["720p", "16:9"]


@dataclass(frozen=True)
class Question:
    """A prompt, and what its video should show."""

    prompt: str
    wanted: Seen


# --- making videos -----------------------------------------------------------------------------------------


def new_job(prompt: str, seed: int, size: Size = SIZE_480, frames: int = 89, steps: int = 30) -> Job:
    return Job(prompt, NEGATIVE_PROMPT, size, frames, steps, 25, seed)


def make(model: Model, job: Job) -> Tensor:
    """Returns the job's video, (F, 3, H, W) in [0, 1]."""
    frames = [event.pixels for event in run(model, job) if isinstance(event, Frames)]
    return torch.from_numpy(np.concatenate(frames)).movedim(-1, 1).float() / 255


def pinned(job: Job, pictures: dict[int, Tensor], strength: float = 1.0) -> Job:
    """Returns the job with pictures pinned. pictures: (3, H, W) in [0, 1], by frame."""
    conditions = (
        Condition((picture * 255).round().byte().movedim(0, -1)[None].numpy(), frame, strength)
        for frame, picture in pictures.items()
    )
    return replace(job, conditions=tuple(conditions))


def sheet(videos: list[Tensor], columns: int = 6, width: int = 208) -> Image.Image:
    """Returns a contact sheet: a row per video, its frames evenly spread. videos: (F, 3, H, W) in [0, 1]."""
    rows = []
    for video in videos:
        height = round(width * video.shape[2] / video.shape[3])
        picks = torch.linspace(0, len(video) - 1, columns).round().long().tolist()
        tiles = [Image.fromarray((video[i] * 255).byte().movedim(0, -1).numpy()) for i in picks]
        rows.append(np.concatenate([np.asarray(tile.resize((width, height))) for tile in tiles], 1))
    widest = max(row.shape[1] for row in rows)
    return Image.fromarray(np.concatenate([np.pad(row, ((0, 0), (0, widest - row.shape[1]), (0, 0))) for row in rows]))


# --- prompts -----------------------------------------------------------------------------------------------


def make_questions(count: int, seed: int) -> list[Question]:
    """Returns random prompts that name a subject, a direction and a plain background."""
    rng, questions = Random(f"evaluate {seed}"), []
    for _ in range(count):
        colour, ground = rng.sample(JUDGED_COLOURS, 2)
        shape, direction = rng.choice(SHAPES), rng.choice(DIRECTIONS)
        prompt = f"a {colour} {shape} {rng.choice(MOTIONS[direction])} on a {ground} background"
        questions.append(Question(prompt, Seen(ground, colour, shape, direction)))
    return questions


def score_prompts(
    model: Model, questions: list[Question], size: Size, frames: int
) -> tuple[dict[str, float], list[Tensor]]:
    """Returns the shares of prompts whose background, colour, shape and direction come out right, and some videos."""
    names = [field.name for field in fields(Seen)]
    hits = dict.fromkeys(names, 0)
    shown: list[Tensor] = []
    for seed, question in enumerate(questions):
        video = make(model, new_job(question.prompt, seed, size, frames))
        seen = look(video)
        for name in names:
            hits[name] += getattr(seen, name) == getattr(question.wanted, name)
        if len(shown) < 10:
            shown.append(video)
        print(f"  {question.prompt} -> {seen}", flush=True)
    return {name: hit / len(questions) for name, hit in hits.items()}, shown


# --- pictures ----------------------------------------------------------------------------------------------


def likeness(made: Tensor, real: Tensor) -> tuple[float, float]:
    """Returns the PSNR in dB and the structural similarity of two pictures (3, H, W) in [0, 1]."""
    similar = structural_similarity(made.numpy(), real.numpy(), channel_axis=0, data_range=1.0)
    return signal_to_noise(made, real), float(similar)


@torch.inference_mode()
def through_autoencoder(model: Model, picture: Tensor) -> Tensor:
    """Returns a picture (3, H, W) in [0, 1] encoded and decoded: the best that a pinned picture can come out as."""
    _, height, width = picture.shape
    cut = picture[:, : height // 64 * 64, : width // 64 * 64]
    latents = encode(model.vae, (cut[None, :, None] * 2 - 1).to(model.vae.dtype))
    made = next(decode(model.vae, latents, Sampling().decode_timestep))
    return (made[0].float() / 2 + 0.5).clamp(0, 1)


def drawn_pictures(count: int, size: Size, seed: int) -> list[Tensor]:
    rng = Random(f"evaluate pictures {seed}")
    rows, columns = size.height // 8, size.width // 8
    cells = [random_picture(rng, rows, columns, 8) for _ in range(count)]
    return [torch.nn.functional.interpolate(cell[None], scale_factor=8, mode="bilinear")[0] for cell in cells]


def held_out_photographs(size: Size) -> list[Tensor]:
    ready = []
    for photo in photographs(HELD_OUT):
        scale = max(size.height / photo.shape[1], size.width / photo.shape[2])
        larger = torch.nn.functional.interpolate(photo[None], scale_factor=scale, mode="bilinear", antialias=True)[0]
        ready.append(larger[:, : size.height, : size.width])
    return ready


def score_pinned(model: Model, pictures: list[Tensor], frames: tuple[int, ...], seed: int) -> tuple[str, list[Tensor]]:
    """Pins each picture, and its successors, at the given frames.

    Returns the mean likeness beside the limit of the autoencoder, as text, and the videos.
    """
    figures, limits, shown = [], [], []
    for i in range(len(pictures)):
        chosen = {frame: pictures[(i + shift) % len(pictures)] for shift, frame in enumerate(frames)}
        video = make(model, pinned(new_job("a smooth transition", seed + i), chosen))
        shown.append(video)
        for frame, picture in chosen.items():
            inside = (slice(None), slice(0, picture.shape[1] // 64 * 64), slice(0, picture.shape[2] // 64 * 64))
            figures.append(likeness(video[frame][inside], picture[inside]))
            limits.append(likeness(through_autoencoder(model, picture), picture[inside]))
    made, best = np.mean(figures, 0), np.mean(limits, 0)
    return f"{made[0]:.1f} dB, SSIM {made[1]:.2f} (limit {best[0]:.1f} dB, {best[1]:.2f})", shown


# --- settings ----------------------------------------------------------------------------------------------


def measure_settings(model: Model, loras: list[Path], seed: int) -> tuple[dict[str, float], list[Tensor]]:
    """Returns the mean absolute change of a video under each setting, in percent of white, and the videos."""
    job = new_job("a red circle moving right on a blue background", seed)
    base = make(model, job)
    plain = replace(job, sampling=replace(job.sampling, guidance_scale=1.0))
    variants = {
        "guidance 1": plain,
        "guidance 6": replace(job, sampling=replace(job.sampling, guidance_scale=6.0)),
        "no negative prompt": replace(job, negative_prompt=""),
        "negative prompt 'red'": replace(job, negative_prompt="red"),
        "another seed": replace(job, seed=seed + 1),
    }
    for lora in loras:
        for scale in (0.5, 1.0):
            adapter = AdapterFile(lora, lora.name, content_sha256(lora), scale, ("loras", 0))
            variants[f"{lora.stem} at {scale:g}"] = replace(job, adapters=(adapter,))
    videos = {name: make(model, variant) for name, variant in variants.items()}
    figures = {name: float((video - base).abs().mean()) * 100 for name, video in videos.items()}
    return figures, [base, *videos.values()]


def describe_edges(model: Model, videos: list[Tensor]) -> str:
    """Returns how visible the edges of tokens are, as text. videos: (F, 3, H, W) in [0, 1], of one size."""
    size = Size(videos[0].shape[3], videos[0].shape[2])
    left, top = margins(drawn_size(size, model.grid), size)
    steps = [edge_steps(video, model.grid.spatial, (top, left)) for video in videos]
    at, elsewhere = np.mean(steps, 0)
    return f"steps of {at:.2f} grey levels at the edges of tokens, {elsewhere:.2f} elsewhere"


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Prints the seconds that the context takes."""
    start = time.monotonic()
    yield
    print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)


def evaluate(model: Model, loras: list[Path], out: Path, count: int, seed: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    questions = make_questions(count, seed)
    cases = (
        ("480p, 89 frames", SIZE_480, 89, count),
        ("480p, 33 frames", SIZE_480, 33, count),
        ("720p, 89 frames", SIZE_720, 89, count // 4),
    )
    for name, size, frames, some in cases:
        with timed(name):
            rates, shown = score_prompts(model, questions[:some], size, frames)
            sheet(shown).save(out / f"prompts {name}.png")
        print(name, {key: f"{rate:.0%}" for key, rate in rates.items()}, describe_edges(model, shown), sep=", ")
    for name, pictures in (
        ("drawn", drawn_pictures(6, SIZE_480, seed)),
        ("photographs", held_out_photographs(SIZE_480)),
    ):
        for frames_at in ((0,), (88,), (40,), (0, 88)):
            figure, shown = score_pinned(model, pictures, frames_at, seed)
            print(f"{name} pinned at {frames_at}: {figure}, {describe_edges(model, shown)}", flush=True)
            sheet(shown).save(out / f"{name} at {' and '.join(map(str, frames_at))}.png")
    figures, shown = measure_settings(model, loras, seed)
    print("change in % of white:", {name: f"{figure:.1f}" for name, figure in figures.items()})
    sheet(shown).save(out / "knobs.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo", help="the model: a name or a folder")
    parser.add_argument("--lora", type=Path, action="append", default=[], help="a LoRA to try; can be repeated")
    parser.add_argument("--out", type=Path, required=True, help="folder for the contact sheets")
    parser.add_argument("--count", type=int, default=40, help="number of prompts at 480p")
    parser.add_argument("--seed", type=int, default=0, help="draws other prompts and pictures")
    given = parser.parse_args()
    evaluate(keyreel.load_model(given.model), given.lora, given.out, given.count, given.seed)


if __name__ == "__main__":
    main()
