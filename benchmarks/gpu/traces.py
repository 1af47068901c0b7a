"""Watches the engine draw a video: how long each stage takes, what memory it holds, what comes out."""

import hashlib
import statistics
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field, replace
from time import perf_counter

import numpy as np
import torch
from torch.nn import functional

from benchmarks.gpu.roofline import CASES, TEXT_TOKENS, Case
from benchmarks.gpu.timing import peak, reset_peak, synchronize
from keyreel.engine import fitting, latents
from keyreel.engine.conditions import initial_noise
from keyreel.engine.models import Model
from keyreel.video.canvas import Size, drawn_frames, drawn_size, latent_shape
from keyreel.video.events import Checkpoint, Event, Frames, Stage, Step
from keyreel.video.job import Condition, Job, Sampling

PROMPTS = "red " * (TEXT_TOKENS - 1), "blue " * (TEXT_TOKENS - 1)
"""As long as a prompt can be, with the token that ends it: a real prompt takes a little less."""
SMALL = Case("small", 96, 64, 17, 3 * 2 * 3)

DEFAULT_SAMPLING = Sampling()

Run = Callable[[Model, Job], Generator[Event]]


@dataclass(slots=True)
class StageTrace:
    """seconds: of the whole stage. marks: of each step. peak: the most bytes that the device held; 0 on a CPU."""

    seconds: float = 0
    marks: list[float] = field(default_factory=list)
    peak: int = 0

    @property
    def step_ms(self) -> float:
        """The median step. The first one, which also warms up, does not count if there are others."""
        return 1000 * statistics.median(self.marks[1:] or self.marks)


@dataclass(frozen=True, slots=True)
class Trace:
    """tokens: (1, N, C), the denoised latents. frames: the hash of the finished frames."""

    stages: dict[str, StageTrace]
    tokens: np.ndarray
    frames: str

    @property
    def denoise(self) -> StageTrace:
        return self.stages["denoise"]

    @property
    def latents(self) -> str:
        return hashlib.sha256(self.tokens.tobytes()).hexdigest()


def cases(*, quick: bool) -> tuple[Case, ...]:
    return (SMALL,) if quick else CASES


def job_of(case: Case, steps: int, *, levels: int = 1, sampling: Sampling = DEFAULT_SAMPLING) -> Job:
    """Returns a job. levels: with 2, a picture fixes the first frame, whose tokens then have their own level."""
    picture = np.random.default_rng(0).integers(0, 255, (1, case.height, case.width, 3), np.uint8)
    conditions = (Condition(picture, 0, 1.0),) if levels == 2 else ()
    size = Size(case.width, case.height)
    return Job(*PROMPTS, size, case.frames, steps, frame_rate=25, seed=1, conditions=conditions, sampling=sampling)


def watch(model: Model, job: Job, *, last: str = "decode", run: Run = fitting.run) -> Trace:
    """Runs a job up to the end of stage `last`. Waits for the device after each event."""
    stages = {"text": StageTrace()}
    name, tokens, digest = "text", None, hashlib.sha256()
    clock = _Clock(model.device)
    with closing(run(model, replace(job, checkpoints=True))) as events:
        for event in events:
            match event:
                case Stage():
                    clock.end(stages[name])
                    if name == last:
                        break
                    name = event.name
                    stages[name] = StageTrace()
                case Step() | Frames():
                    stages[name].marks.append(clock.lap())
                    if isinstance(event, Frames):
                        digest.update(event.pixels.tobytes())
                case Checkpoint():
                    tokens = event.tokens
        else:
            clock.end(stages[name])
    assert tokens is not None, "a job has steps"  # noqa: S101
    return Trace(stages, tokens(), digest.hexdigest())


def velocity(model: Model, job: Job) -> torch.Tensor:
    """Returns what the model predicts at the first noise level, guided, (1, N, C) fp32 on the CPU."""
    trace = watch(model, replace(job, steps=1), last="denoise")
    noise = initial_noise(latent_shape_of(model, job), model.transformer.config.in_channels, job.seed)
    return latents.pack(noise) - torch.from_numpy(trace.tokens)


def cosine_distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return 1 - float(functional.cosine_similarity(one.flatten().double(), other.flatten().double(), dim=0))


def latent_shape_of(model: Model, job: Job) -> tuple[int, int, int]:
    return latent_shape(drawn_size(job.size, model.grid), drawn_frames(job.frames, model.grid), model.grid)


class _Clock:
    """Seconds and peak memory since the last stage, and seconds since the last lap."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._begin()

    def _begin(self) -> None:
        synchronize(self._device)
        reset_peak(self._device)
        self._stage = self._lap = perf_counter()

    def lap(self) -> float:
        synchronize(self._device)
        before, self._lap = self._lap, perf_counter()
        return self._lap - before

    def end(self, stage: StageTrace) -> None:
        """Notes the time and the peak memory of a stage that is over. The next one begins."""
        synchronize(self._device)
        stage.seconds = perf_counter() - self._stage
        stage.peak = peak(self._device)
        self._begin()
