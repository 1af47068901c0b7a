"""Measures how much of its time a device computes while requests wait for it, and what a LoRA costs.

    python -m benchmarks.busy --before COMMIT

Twenty mixed requests pass through a worker with a real model. torch gets one core, so that the encoder may find another
one free, as beside a GPU. With --before, the sources of that commit get the same requests first.
"""

import argparse
import asyncio
import io
import json
import logging
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import structlog
from tests.worker.conftest import open_bench
from tests.worker.site import open_site, picture

from benchmarks.tables import print_table
from benchmarks.timing_engine_process import TIMES, Times
from keyreel.checkpoints.bundled import bundled_loras
from keyreel.checkpoints.hub import content_sha256
from keyreel.fal.schema import NEGATIVE_PROMPT
from keyreel.video.canvas import Size
from keyreel.video.events import Stage, Step
from keyreel.video.job import AdapterFile, Job

ROOT = Path(__file__).parents[1]
ENGINE = (sys.executable, "-m", "benchmarks.timing_engine_process")
LORA = bundled_loras()["keyreel:neon"]
PROMPT = "a red circle moves right over a blue background"
REQUESTS = 20


@dataclass(frozen=True, slots=True)
class Served:
    """times: of each request in the engine. seconds: until all are completed. loras: the requests with the LoRA.

    downloads: of that LoRA.
    """

    times: list[Times]
    seconds: float
    loras: int
    downloads: int


def mixed(number: int, lora: str, image: str, *, quick: bool) -> dict[str, Any]:
    """Returns one of the requests: every second one is short, half have a LoRA, two of five a picture."""
    return {
        "prompt": f"{PROMPT}, take {number}",
        "aspect_ratio": "1:1",
        "number_of_frames": 9 if quick else 17,
        "number_of_steps": 2 if quick else (30, 8)[number % 2],
        "loras": [{"path": lora}] if number % 4 < 2 else [],
        "images": [{"image_url": image}] if number % 5 < 2 else [],
    }


async def serve(folder: Path, model: str, *, quick: bool) -> Served:
    times = Path(os.environ[TIMES])
    async with open_bench(folder) as bench, open_site() as site:
        lora, image = site.add("lora", LORA.read_bytes()), site.add("picture.png", picture())
        requests = [mixed(number, lora, image, quick=quick) for number in range(4 if quick else REQUESTS)]
        settings = bench.settings(provenance=True, data_dir=folder / "data")
        async with bench.worker(model=model, engine_process=ENGINE, settings=settings):
            await bench.output(await bench.submit())  # now the worker is warm
            times.write_text("")
            start = time.monotonic()
            for request in [await bench.submit(**request) for request in requests]:
                await bench.output(request)
            seconds = time.monotonic() - start
        measured = [Times(**json.loads(line)) for line in times.read_text().splitlines()]
        return Served(measured, seconds, sum(bool(request["loras"]) for request in requests), site.sent.count("lora"))


def print_served(name: str, served: Served) -> None:
    span = served.times[-1].drawn - served.times[0].began
    computing, reading = (sum(getattr(times, part) for times in served.times) for part in ("computing", "reading"))
    parts = {
        "the device computes": computing,
        "it waits until LoRAs and prompts are read": reading,
        "it waits for something else": span - computing - reading,
    }
    print_table(
        f"{len(served.times)} mixed requests, {name}",
        ("", "seconds", "share"),
        ("from the first order to the last frame", f"{span:.1f}", ""),
        *((part, f"{seconds:.2f}", f"{seconds / span:.1%}") for part, seconds in parts.items()),
        ("until all are completed", f"{served.seconds:.1f}", ""),
    )
    print(f"  {served.loras} requests with the same LoRA by URL: {served.downloads} download(s)", flush=True)


def print_loras(name: str, rounds: int, *, quick: bool) -> None:
    """Prints what a LoRA adds to a step, and how long it takes to read, to find again and to attach.

    Counts processor time, which other programs affect less.
    """
    import torch

    import keyreel
    from keyreel.engine.adapter_cache import AdapterCache
    from keyreel.engine.adapters import attached
    from keyreel.engine.pipeline import run

    def steps(job: Job) -> list[float]:
        """Returns the processor seconds of each step but the first."""
        ends = [time.process_time() for event in run(model, job) if isinstance(event, Stage | Step)]
        return [end - begin for begin, end in pairwise(ends)][2 : 1 + job.steps]

    def attach() -> None:
        with attached(model.transformer, [adapter]):
            pass

    model = keyreel.load_model(name, "cpu")
    file = AdapterFile(LORA, LORA.name, content_sha256(LORA), 1.0, ())
    size, frames, number = (Size(96, 64), 9, 3) if quick else (Size(480, 480), 17, 8)
    plain = Job(PROMPT, NEGATIVE_PROMPT, size, frames, number, 25, 1)
    rows = [(median(steps(plain)), median(steps(replace(plain, adapters=(file,))))) for _ in range(rounds)]
    without, with_lora = (min(column) for column in zip(*rows, strict=True))
    adapter = model.adapters.read(file, model.transformer)
    with torch.inference_mode():
        swaps = {
            "read and check its file": _best(lambda: AdapterCache(model.device).read(file, model.transformer)),
            "find it in memory": _best(lambda: model.adapters.read(file, model.transformer)),
            "attach and detach it": _best(attach),
        }
    print_table(
        f"A LoRA of {LORA.stat().st_size / 2**20:.1f} MiB in {len(adapter.branches)} layers",
        ("", "processor ms"),
        ("a step without it", f"{1000 * without:.1f}"),
        ("a step with it", f"{1000 * with_lora:.1f} ({with_lora / without - 1:+.1%})"),
        *((what, f"{1000 * seconds:.2f}") for what, seconds in swaps.items()),
    )


def _best(call: Callable[[], object], number: int = 10) -> float:
    """Returns the processor seconds of the fastest of several calls."""
    taken = []
    for _ in range(number):
        start = time.process_time()
        call()
        taken.append(time.process_time() - start)
    return min(taken)


def serve_before(commit: str, folder: Path) -> None:
    """Runs this program with the sources of a commit."""
    archive = subprocess.run(["git", "archive", commit, "src"], cwd=ROOT, capture_output=True, check=True).stdout  # noqa: S603, S607
    with tarfile.open(fileobj=io.BytesIO(archive)) as sources:
        sources.extractall(folder, filter="data")
    arguments = [argument for argument in sys.argv[1:] if argument not in ("--before", commit)]
    environment = os.environ | {"PYTHONPATH": f"{folder / 'src'}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "benchmarks.busy", *arguments, "--name", f"before ({commit})"]
    subprocess.run(command, env=environment, check=True)  # noqa: S603 - this very module


def main() -> None:
    options = _options()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.before:
            serve_before(options.before, folder / "before")
        os.environ[TIMES] = str(folder / "times")
        served = asyncio.run(serve(folder, options.model, quick=options.quick))
    print_served(options.name or "now", served)
    if not options.name:
        print_loras(options.model, 1 if options.quick else 5, quick=options.quick)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--before", metavar="COMMIT", help="serve the requests with the sources of this commit first")
    parser.add_argument("--quick", action="store_true", help="only see that it works")
    parser.add_argument("--name", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
