"""Compares Keyreel's engine with diffusers' LTXConditionPipeline: same weights, same request, a process for each run.

    python -m benchmarks.engine --resolution 480p --frames 89 --steps 30 --rounds 3
    python -m benchmarks.engine --before ../older-worktree

Prints, for each kind of request, the seconds and the peak memory of both and their ratios. Neither loading the model
nor writing the MP4 is timed. diffusers loads LoRAs with peft; without it, that cell is empty. Then it prints how long
Keyreel takes to start. `--before` also runs Keyreel as it is in another folder, alternating with this one, so that both
meet the same machine.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.tables import print_table
from keyreel.checkpoints.catalogue import find_model
from keyreel.fal.schema import NEGATIVE_PROMPT
from keyreel.video.canvas import Resolution, Size, drawn_frames, drawn_size, output_size
from keyreel.video.events import STAGE_TITLES

PROMPT = "a red circle moves right over a blue background"
ROWS = ("text", "LoRA", "two images", "repeated prompt")
LORA = Path(__file__).parent.parent / "src" / "keyreel" / "demo" / "loras" / "ink.safetensors"
"""Fits the demo model and is part of it, so a LoRA is compared with that model only."""
STARTS = ("generate", "serve")


@dataclass(frozen=True, slots=True)
class Setup:
    model: str
    device: str
    size: Size
    frames: int
    steps: int

    @property
    def starts(self) -> tuple[int, int]:
        """The frames at which the two images are."""
        return 0, self.frames // 16 * 8


@dataclass(frozen=True, slots=True)
class Figures:
    """seconds: time for one video. mebibytes: peak memory of the process."""

    seconds: float
    mebibytes: float


@dataclass(frozen=True, slots=True)
class Column:
    """Something that is measured. source: the folder with Keyreel's `src`."""

    name: str
    engine: str
    source: Path

    def can(self, row: str) -> bool:
        return self.engine == "keyreel" or row != "LoRA" or find_spec("peft") is not None


def main() -> None:
    options = _options()
    setup = _setup(options)
    if options.engine:
        for row in options.rows:
            print(json.dumps(_measure(options.engine, setup, row)))
        return
    title = f"{setup.model} on {setup.device}: {setup.size}, {setup.frames} frames, {setup.steps} steps, guided"
    print(title, flush=True)
    columns = _columns(options)
    groups = [options.rows] if options.quick else [[row] for row in options.rows]
    rounds = [_round(columns, groups) for _ in range(options.rounds)]
    _print_videos(columns, rounds)
    mine = [column for column in columns if column.engine == "keyreel"]
    starts = [[_start(column, kind, setup) for kind in STARTS for column in mine] for _ in range(options.rounds)]
    _print_starts(mine, [min(each) for each in zip(*starts, strict=True)])


def _round(columns: Sequence[Column], groups: Sequence[Sequence[str]]) -> dict[tuple[str, str], Figures]:
    """Measures each row with each column, in turn. The rows of a group share a process."""
    return {
        (row, column.name): figures
        for group in groups
        for column in columns
        if (rows := [row for row in group if column.can(row)])
        for row, figures in zip(rows, _in_process(column, rows), strict=True)
    }


def _measure(engine: str, setup: Setup, row: str) -> dict[str, float]:
    draw = {"keyreel": _keyreel, "stock": _stock}[engine](setup, row)
    if row == "repeated prompt":
        draw(1)
    start = time.perf_counter()
    draw(2)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "mebibytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def _keyreel(setup: Setup, row: str) -> Callable[[int], object]:
    """Returns a function that makes the row's video from a seed."""
    import keyreel
    from keyreel.engine.pipeline import run
    from keyreel.video.job import AdapterFile, Condition, Job

    model = keyreel.load_model(setup.model, setup.device)
    changes: dict[str, Any] = {}
    if row == "LoRA":
        changes["adapters"] = (AdapterFile(LORA, LORA.name, "", 1.0, ()),)
    if row == "two images":
        changes["conditions"] = tuple(Condition(_picture(setup, start)[None], start, 1.0) for start in setup.starts)

    def draw(seed: int) -> None:
        job = Job(PROMPT, NEGATIVE_PROMPT, setup.size, setup.frames, setup.steps, frame_rate=25, seed=seed, **changes)
        for _ in run(model, job):
            pass

    return draw


def _stock(setup: Setup, row: str) -> Callable[[int], object]:
    """The same with diffusers' pipeline and its own loader of LoRAs."""
    import torch
    from diffusers import LTXConditionPipeline
    from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
    from PIL import Image

    found = find_model(setup.model)
    pipeline = LTXConditionPipeline.from_pretrained(found.path, torch_dtype=torch.float32).to(setup.device)
    pipeline.set_progress_bar_config(disable=True)
    drawn = drawn_size(setup.size, found.grid)
    changes: dict[str, Any] = {}
    if row == "LoRA":
        pipeline.load_lora_weights(str(LORA.parent), weight_name=LORA.name)
    if row == "two images":
        pictures = {start: Image.fromarray(_picture(setup, start)) for start in setup.starts}
        changes["conditions"] = [LTXVideoCondition(image=each, frame_index=start) for start, each in pictures.items()]
    return lambda seed: pipeline(
        prompt=PROMPT,
        negative_prompt=NEGATIVE_PROMPT,
        width=drawn.width,
        height=drawn.height,
        num_frames=drawn_frames(setup.frames, found.grid),
        frame_rate=25,
        num_inference_steps=setup.steps,
        guidance_scale=3.0,
        decode_timestep=0.05,
        decode_noise_scale=0.025,
        output_type="np",
        generator=torch.Generator().manual_seed(seed),
        **changes,
    )


def _picture(setup: Setup, start: int) -> Any:
    """Returns a picture (height, width, 3), uint8, that differs by `start`."""
    rows, columns = np.mgrid[: setup.size.height, : setup.size.width]
    return np.stack([rows % 256, columns % 256, np.full_like(rows, start)], axis=-1).astype(np.uint8)


def _in_process(column: Column, rows: Sequence[str]) -> Iterator[Figures]:
    command = [sys.executable, "-m", "benchmarks.engine", *sys.argv[1:], "--engine", column.engine, "--rows", *rows]
    done = subprocess.run(command, capture_output=True, text=True, env=_environment(column.source))  # noqa: S603 - this very module
    if done.returncode:
        raise RuntimeError(f"{column.name} failed at {', '.join(rows)}:\n{done.stderr}")
    for line in done.stdout.splitlines()[-len(rows) :]:
        yield Figures(**json.loads(line))


def _start(column: Column, kind: str, setup: Setup) -> float:
    """Returns the seconds from the start of a command until it has done its first step or is ready."""
    common = ["--model", setup.model, "--device", setup.device]
    with tempfile.TemporaryDirectory() as folder:
        if kind == "serve":
            arguments = ["serve", "--port", "0", "--data-dir", folder, *common]
        else:
            arguments = ["generate", PROMPT, "--out", f"{folder}/video.mp4", "--number-of-steps", "5", *common]
            arguments += ["--number-of-frames", str(setup.frames)]
        begin = time.perf_counter()
        with subprocess.Popen(  # noqa: S603 - this very package
            [sys.executable, "-m", "keyreel", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=_environment(column.source),
        ) as process:
            assert process.stdout  # noqa: S101
            if kind == "serve":
                _wait_until_ready(_after(process.stdout, " is at ").partition("/#key=")[0].strip())
            else:
                _after(process.stdout, f"{STAGE_TITLES['denoise']} 1/")
            seconds = time.perf_counter() - begin
            process.terminate()
            process.stdout.read()
    return seconds


def _after(lines: Iterator[str], sign: str) -> str:
    """Reads lines until one contains `sign`. Returns what follows it."""
    read = []
    for line in lines:
        read.append(line)
        if sign in line:
            return line.partition(sign)[2]
    raise RuntimeError(f"The command ended before it printed {sign!r}:\n{''.join(read)}")


def _wait_until_ready(url: str) -> None:
    while httpx.get(f"{url}/health/ready", trust_env=False).status_code != 200:
        time.sleep(0.02)


def _environment(source: Path) -> dict[str, str]:
    path = [str(source / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path)}


def _print_videos(columns: Sequence[Column], rounds: Sequence[dict[tuple[str, str], Figures]]) -> None:
    first, *others = (column.name for column in columns)
    head = ["", *(f"{column.name}: s, MiB" for column in columns), *(f"ratio to {name}" for name in others)]
    rows = []
    for row in dict.fromkeys(row for row, _ in rounds[0]):
        best = {column.name: _best(rounds, row, column) for column in columns}
        ratios = (_ratio(best[first], best[name]) for name in others)
        rows.append([row, *map(_shown, best.values()), *ratios])
    print_table(f"Videos (the best seconds and the highest peak of {len(rounds)} rounds)", head, *rows)


def _best(rounds: Sequence[dict[tuple[str, str], Figures]], row: str, column: Column) -> Figures | None:
    if not column.can(row):
        return None
    figures = [each[row, column.name] for each in rounds]
    return Figures(min(each.seconds for each in figures), max(each.mebibytes for each in figures))


def _shown(figures: Figures | None) -> str:
    return f"{figures.seconds:.1f}, {figures.mebibytes:.0f}" if figures else "needs peft"


def _ratio(ours: Figures | None, theirs: Figures | None) -> str:
    if not ours or not theirs:
        return "-"
    return f"{ours.seconds / theirs.seconds:.2f}, {ours.mebibytes / theirs.mebibytes:.2f}"


def _print_starts(columns: Sequence[Column], seconds: Sequence[float]) -> None:
    titles = ("`keyreel generate`: first step", "`keyreel serve`: ready")
    count = len(columns)
    rows = [
        [title, *(f"{each:.1f}" for each in seconds[index * count : (index + 1) * count])]
        for index, title in enumerate(titles)
    ]
    print_table("Start-up (best seconds)", ["", *(column.name for column in columns)], *rows)


def _columns(options: argparse.Namespace) -> list[Column]:
    here = Path(__file__).parent.parent
    before = [Column("before", "keyreel", options.before.absolute())] if options.before else []
    return [Column("Keyreel", "keyreel", here), *before, Column("stock", "stock", here)]


def _setup(options: argparse.Namespace) -> Setup:
    resolution: Resolution = options.resolution
    if options.quick:
        return Setup(options.model, options.device, Size(128, 64), frames=9, steps=1)
    size = output_size(resolution, "16:9", None)
    return Setup(options.model, options.device, size, options.frames, options.steps)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--resolution", choices=("480p", "720p"), default="480p")
    parser.add_argument("--frames", type=int, default=89)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--before", type=Path, help="a folder with another version of Keyreel to compare with")
    parser.add_argument("--quick", action="store_true", help="a tiny video, and one process for all rows")
    parser.add_argument("--engine", choices=("keyreel", "stock"), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
