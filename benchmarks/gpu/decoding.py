"""The stage that times the decoder, beside diffusers'."""

from collections import deque
from contextlib import closing

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.hardware import GIB
from benchmarks.gpu.models import random_autoencoder, random_model
from benchmarks.gpu.stages import Bench
from benchmarks.gpu.timing import TOO_LARGE, elapsed, peak, reset_peak
from benchmarks.gpu.traces import cases, job_of, latent_shape_of, watch
from keyreel.engine import fitting
from keyreel.engine.models import Model
from keyreel.video.events import Stage
from keyreel.video.job import Job

TIMESTEP = 0.05


def decoding(bench: Bench) -> None:
    """Keyreel yields frames while it decodes; diffusers decodes the whole video at once."""
    model = random_model(bench)
    job = job_of(cases(quick=bench.quick)[0], steps=1)
    first = watch(model, job)
    again = watch(model, job)
    decode = again.stages["decode"]
    bench.add("Keyreel, first frames", decode.marks[0], "s")
    bench.add("Keyreel, all frames", decode.seconds, "s")
    if decode.peak:
        bench.add("Keyreel, peak memory", decode.peak / GIB, "GiB")
    bench.add("the same frames again", again.frames == first.frames)
    _stock(bench, model, job)
    _launches(bench, model, job, decode.seconds)


def _stock(bench: Bench, model: Model, job: Job) -> None:
    vae = random_autoencoder(bench)
    z = torch.randn(1, vae.config.latent_channels, *latent_shape_of(model, job), device=model.device, dtype=model.dtype)
    timestep = torch.tensor([TIMESTEP], device=model.device, dtype=model.dtype)

    @torch.no_grad()
    def decode() -> torch.Tensor:
        video = vae.decode(z, timestep, return_dict=False)[0]
        pixels: torch.Tensor = ((video.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu()
        return pixels

    try:
        decode()
    except torch.OutOfMemoryError:  # the memory plan leaves room for Keyreel's decoder only
        bench.add("diffusers, all frames", TOO_LARGE)
        return
    reset_peak(model.device)
    bench.add("diffusers, all frames", elapsed(decode, model.device), "s")
    if held := peak(model.device):
        bench.add("diffusers, peak memory", held / GIB, "GiB")


def _launches(bench: Bench, model: Model, job: Job, usual: float) -> None:
    """Counts the kernels of Keyreel's decoder, and the time in which the device waits for the next to be launched.

    usual: seconds that decoding takes when nobody watches each launch.
    """
    on_gpu = model.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with closing(fitting.run(model, job)) as events:
        next(event for event in events if isinstance(event, Stage) and event.name == "decode")
        with profile(activities=activities) as recorded:
            deque(events, maxlen=0)
    kind = "CUDA" if on_gpu else "CPU"
    kernels = [event.time_range.elapsed_us() for event in recorded.events() or () if event.device_type.name == kind]
    bench.add("Keyreel, kernels" if on_gpu else "Keyreel, operators", float(len(kernels)))
    if on_gpu:
        bench.add("Keyreel, share of the time without a kernel", max(0.0, 1 - sum(kernels) / 1e6 / usual))
