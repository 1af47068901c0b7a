"""Compares the videos of a model in eight bits (`+int8`, `+fp8`) with those of the model itself.

    python -m benchmarks.quality --model demo --size 832x480 --frames 89 --steps 30

Draws the same requests with each and prints the PSNR (of a whole video, and of its worst frame) and the seconds, which
include neither loading the model nor writing the MP4. On a CPU, fp8 is the arithmetic of a GPU, but slow.
"""

import argparse
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf, log10
from typing import get_args

import numpy as np

import keyreel
from benchmarks.tables import print_table
from keyreel.checkpoints.checkpoint import Quantisation
from keyreel.engine.models import Model
from keyreel.engine.pipeline import run
from keyreel.fal.schema import NEGATIVE_PROMPT
from keyreel.video.canvas import Size
from keyreel.video.events import Frames
from keyreel.video.job import Job, Pixels

PROMPTS = (
    "a red circle moving from left to right on a blue background",
    "a big white moon over the sea",
    "a green square falling on a pink background",
)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A video and how long it took."""

    pixels: Pixels
    seconds: float


def main() -> None:
    options = _options()
    jobs = _jobs(options)
    exact = _draw(options.model, options.device, jobs)
    rows = [("", "PSNR in dB", "of the worst frame", "seconds"), (options.model, "", "", _seconds(exact))]
    for kind in get_args(Quantisation):
        drawn = _draw(f"{options.model}+{kind}", options.device, jobs)
        pairs = [(one.pixels, other.pixels) for one, other in zip(exact, drawn, strict=True)]
        worst = [min(psnr(*frames) for frames in zip(*pair, strict=True)) for pair in pairs]
        rows.append((f"+{kind}", _range(psnr(*pair) for pair in pairs), _range(worst), _seconds(drawn)))
    what = f"{len(jobs)} videos of {options.size}, {options.frames} frames, {options.steps} steps"
    print_table(f"{what} on {options.device}, lowest to highest", *rows)


def psnr(one: Pixels, other: Pixels) -> float:
    """Returns the peak signal-to-noise ratio of two pictures or videos, in dB."""
    error = float(np.square(one.astype(np.float32) - other.astype(np.float32)).mean())
    return 10 * log10(255**2 / error) if error else inf


def _jobs(options: argparse.Namespace) -> list[Job]:
    width, height = map(int, options.size.split("x"))
    return [
        Job(prompt, NEGATIVE_PROMPT, Size(width, height), options.frames, options.steps, frame_rate=25, seed=seed)
        for seed, prompt in enumerate(PROMPTS[: options.videos])
    ]


def _draw(name: str, device: str, jobs: Sequence[Job]) -> list[Drawn]:
    model = keyreel.load_model(name, device)
    return [_timed(model, job) for job in jobs]


def _timed(model: Model, job: Job) -> Drawn:
    start = time.perf_counter()
    pixels = np.concatenate([event.pixels for event in run(model, job) if isinstance(event, Frames)])
    return Drawn(pixels, time.perf_counter() - start)


def _range(values: Iterable[float]) -> str:
    known = sorted(values)
    return f"{known[0]:.1f} to {known[-1]:.1f}"


def _seconds(drawn: Sequence[Drawn]) -> str:
    return _range(each.seconds for each in drawn)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", default="832x480")
    parser.add_argument("--frames", type=int, default=89)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--videos", type=int, default=len(PROMPTS), help="how many of the prompts")
    return parser.parse_args()


if __name__ == "__main__":
    main()
