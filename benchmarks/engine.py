"""Compares Keyreel's engine with diffusers' LTXConditionPipeline: same weights, same request, a process for each run.

    python -m benchmarks.engine --resolution 480p --frames 89 --steps 30 --rounds 3

Prints the seconds and the peak memory of both, and the ratio of the seconds. Neither loading the model nor writing the
MP4 is timed.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from keyreel.checkpoints.catalogue import find_model
from keyreel.fal.schema import NEGATIVE_PROMPT
from keyreel.video.canvas import Resolution, Size, drawn_frames, drawn_size, output_size

PROMPT = "a red circle moves right over a blue background"
ENGINES = ("keyreel", "stock")


@dataclass(frozen=True, slots=True)
class Setup:
    model: str
    device: str
    size: Size
    frames: int
    steps: int


@dataclass(frozen=True, slots=True)
class Figures:
    """seconds: time for one video. mebibytes: peak memory of the process."""

    seconds: float
    mebibytes: float


def main() -> None:
    options = _options()
    if options.engine:
        print(json.dumps(_measure(options.engine, _setup(options))))
        return
    rounds = [[_in_process(engine) for engine in ENGINES] for _ in range(options.rounds)]
    _print(_setup(options), list(zip(*rounds, strict=True)))


def _measure(engine: str, setup: Setup) -> dict[str, float]:
    draw = {"keyreel": _keyreel, "stock": _stock}[engine](setup)
    start = time.perf_counter()
    draw()
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "mebibytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def _keyreel(setup: Setup) -> Callable[[], object]:
    import keyreel
    from keyreel.engine.pipeline import run
    from keyreel.video.job import Job

    model = keyreel.load_model(setup.model, setup.device)
    job = Job(PROMPT, NEGATIVE_PROMPT, setup.size, setup.frames, setup.steps, frame_rate=25, seed=1)
    return lambda: [None for _ in run(model, job)]


def _stock(setup: Setup) -> Callable[[], object]:
    import torch
    from diffusers import LTXConditionPipeline

    path = find_model(setup.model).path
    pipeline = LTXConditionPipeline.from_pretrained(path, torch_dtype=torch.float32).to(setup.device)
    pipeline.set_progress_bar_config(disable=True)
    grid = find_model(setup.model).grid
    drawn = drawn_size(setup.size, grid)
    return lambda: pipeline(
        prompt=PROMPT,
        negative_prompt=NEGATIVE_PROMPT,
        width=drawn.width,
        height=drawn.height,
        num_frames=drawn_frames(setup.frames, grid),
        frame_rate=25,
        num_inference_steps=setup.steps,
        guidance_scale=3.0,
        decode_timestep=0.05,
        decode_noise_scale=0.025,
        output_type="np",
        generator=torch.Generator().manual_seed(1),
    )


def _in_process(engine: str) -> Figures:
    command = [sys.executable, "-m", "benchmarks.engine", *sys.argv[1:], "--engine", engine]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - this very module
    return Figures(**json.loads(done.stdout.splitlines()[-1]))


def _print(setup: Setup, columns: list[tuple[Figures, ...]]) -> None:
    print(f"{setup.model} on {setup.device}: {setup.size}, {setup.frames} frames, {setup.steps} steps, guided")
    for name, figures in zip(ENGINES, columns, strict=True):
        seconds = sorted(figure.seconds for figure in figures)
        memory = max(figure.mebibytes for figure in figures)
        print(f"{name:>8}: {seconds[0]:.1f} / {statistics.median(seconds):.1f} s (best / median), {memory:.0f} MiB")
    ours, theirs = (min(figure.seconds for figure in figures) for figures in columns)
    print(f"   ratio: {ours / theirs:.2f} of the stock pipeline's time")


def _setup(options: argparse.Namespace) -> Setup:
    resolution: Resolution = options.resolution
    return Setup(options.model, options.device, output_size(resolution, "16:9", None), options.frames, options.steps)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--resolution", choices=("480p", "720p"), default="480p")
    parser.add_argument("--frames", type=int, default=89)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engine", choices=ENGINES, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
