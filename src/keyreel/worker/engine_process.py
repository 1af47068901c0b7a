"""The engine process: owns a device, loads one model and makes one video after the other.

It uses neither the database nor the network, and exits when the supervisor closes the pipe.
"""

import os
import sys
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from keyreel.errors import ModelError, RequestError
from keyreel.media.mp4 import Mp4Writer
from keyreel.video.events import Checkpoint, Event, Frames, Notice, Preview, Stage, Step
from keyreel.video.job import Job, Pixels
from keyreel.worker.channel import Channel
from keyreel.worker.checkpoint_file import read_checkpoint, write_checkpoint
from keyreel.worker.checkpoint_writer import CheckpointWriter
from keyreel.worker.messages import (
    Checkpointed,
    Failed,
    Finished,
    Load,
    LoadFailed,
    Previewed,
    Ready,
    Refused,
    Run,
    Stop,
    Stopped,
)
from keyreel.worker.spool import checkpoint_path, unspool, write_preview

if TYPE_CHECKING:
    from keyreel.engine.models import Model

PROBE = 64
"""Rows and columns of the matrices that test the device."""
MAX_PENDING_BATCHES = 2
"""Batches of decoded frames that may wait in memory for the encoder."""


class Engine(Protocol):
    """A loaded model, or a fake one in tests."""

    @property
    def facts(self) -> Ready: ...

    def run(self, job: Job, resume: Checkpoint | None = None) -> Generator[Event]: ...

    def is_healthy(self) -> bool:
        """Returns whether the device still computes correctly."""


class _StoppedError(Exception):
    pass


@dataclass(frozen=True)
class TorchEngine:
    """The real engine. It imports torch late, because the import takes seconds and a fake engine does not need it."""

    model: "Model"

    @property
    def facts(self) -> Ready:
        from keyreel.engine.adapters import linear_shapes
        from keyreel.engine.devices import traits

        model = self.model
        return Ready(
            name=model.name,
            fingerprint=model.fingerprint,
            device=model.device_names,
            grid=model.grid,
            linears=linear_shapes(model.transformer),
            capabilities=model.capabilities,
            traits=traits(model.device, model.dtype, model.ranks),
        )

    def run(self, job: Job, resume: Checkpoint | None = None) -> Generator[Event]:
        from keyreel.engine.fitting import run

        return run(self.model, job, resume)

    def is_healthy(self) -> bool:
        """Multiplies two matrices whose product is known and checks the result."""
        import torch

        if self.model.group.is_broken:
            return False

        try:
            ones = torch.ones(PROBE, PROBE, device=self.model.device)
            return (ones @ ones).sum().item() == PROBE**3
        except Exception:  # noqa: BLE001 - any error means that the device did not compute
            return False


def load_torch(order: Load) -> Engine:
    from keyreel.checkpoints import hub
    from keyreel.engine.rank_process import load

    hub.use_token(order.hub_token)
    return TorchEngine(load(order.model, order.device, order.cache_dir, order.settings, on_death=_end))


def _end(reason: str) -> None:
    """Ends the process at once. Its main thread may be waiting for a rank that is gone."""
    print(reason, file=sys.stderr, flush=True)
    os._exit(1)


def main(load: Callable[[Load], Engine] = load_torch) -> None:
    channel = Channel.to_supervisor()
    try:
        if engine := _load(load, channel):
            channel.send(engine.facts)
            _serve(engine, channel)
    except (EOFError, ConnectionError):
        return


def _load(load: Callable[[Load], Engine], channel: Channel) -> Engine | None:
    order = channel.receive()
    if not isinstance(order, Load):
        raise TypeError(f"The first message must be Load, not {order}")
    try:
        return load(order)
    except ModelError as error:
        channel.send(LoadFailed(str(error)))
        return None


def _serve(engine: Engine, channel: Channel) -> None:
    while True:
        order = channel.receive()
        if not isinstance(order, Run):
            continue  # a Stop that arrived after the run had ended
        answer = perform(engine, order, channel)
        channel.send(answer)
        if isinstance(answer, Failed) and answer.poisoned:
            return


def perform(engine: Engine, run: Run, channel: Channel) -> Finished | Stopped | Refused | Failed:
    """Makes the video of `run`, sending its events, and returns how that ended."""
    try:
        return _make_video(engine, run, channel)
    except _StoppedError:
        return Stopped()
    except RequestError as error:
        return Refused(error.problems)
    except (EOFError, ConnectionError):
        raise
    except Exception as error:  # noqa: BLE001 - a model may raise anything, and the supervisor needs an answer
        traceback.print_exc()
        # The device is tested by using it, because the wording of driver errors changes between versions.
        return Failed(f"{type(error).__name__}: {error}", poisoned=not engine.is_healthy())


def _make_video(engine: Engine, run: Run, channel: Channel) -> Finished:
    channel.send(Stage("text"))
    job = replace(unspool(run.spooled, run.folder), previews=True, checkpoints=run.checkpoint_every > 0)
    resume = read_checkpoint(run.resume).checkpoint if run.resume else None

    def save(checkpoint: Checkpoint) -> None:
        path = checkpoint_path(run.folder)
        write_checkpoint(checkpoint, run.identity, path)
        channel.send(Checkpointed(path))

    with (
        Mp4Writer(run.video, job.size, job.frame_rate, run.metadata) as writer,
        background_writer(writer.write) as write,
        CheckpointWriter(run.checkpoint_every, save) as checkpoints,
        closing(engine.run(job, resume)) as events,
    ):
        for event in events:
            match event:
                case Frames(pixels):
                    write(pixels)
                case Preview(pixels):
                    channel.send(Previewed(write_preview(pixels, run.folder)))
                case Checkpoint():
                    checkpoints.offer(event)
                case Stage() | Step() | Notice():
                    channel.send(event)
            if channel.has_message() and isinstance(order := channel.receive(), Stop) and order.id == run.id:
                if order.keep:
                    checkpoints.write_newest()
                raise _StoppedError
    return Finished(run.video.stat().st_size)


@contextmanager
def background_writer(write: Callable[[Pixels], None]) -> Iterator[Callable[[Pixels], None]]:
    """Yields a function that calls `write` in a thread. A later call, or the end of the block, raises its errors."""
    pending: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1, "encoder") as thread:

        def submit(pixels: Pixels) -> None:
            pending.append(thread.submit(write, pixels))
            if len(pending) > MAX_PENDING_BATCHES:
                pending.popleft().result()

        try:
            yield submit
            for call in pending:
                call.result()
        finally:
            thread.shutdown(cancel_futures=True)


if __name__ == "__main__":
    main()
