"""The engine process: owns a device, loads one model and makes one video after the other.

It takes the next order when the last frame of a video has left the device (`Drawn`); a thread goes on writing the
file. It uses neither the database nor the network, and exits when the supervisor closes the pipe.
"""

import os
import sys
import traceback
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Protocol

from keyreel.errors import ModelError, RequestError
from keyreel.media.mp4 import Mp4Writer
from keyreel.video.events import Checkpoint, Event, Frames, Notice, Preview, Stage, Step
from keyreel.video.job import AdapterFile, Job
from keyreel.worker.channel import Channel
from keyreel.worker.checkpoint_file import read_checkpoint, write_checkpoint
from keyreel.worker.checkpoint_writer import CheckpointWriter
from keyreel.worker.encoder import DISCARDED, Encoder
from keyreel.worker.messages import (
    Checkpointed,
    Drawn,
    Failed,
    Finished,
    Load,
    LoadFailed,
    Message,
    Preload,
    Previewed,
    Ready,
    Refused,
    Run,
    Stop,
    Stopped,
    Unwritten,
)
from keyreel.worker.spool import checkpoint_path, unspool, write_preview

if TYPE_CHECKING:
    from keyreel.engine.models import Model

PROBE = 64
"""Rows and columns of the matrices that test the device."""


class Engine(Protocol):
    """A loaded model, or a fake one in tests."""

    @property
    def facts(self) -> Ready: ...

    def run(self, job: Job, resume: Checkpoint | None = None) -> Generator[Event]: ...

    def preload(self, adapters: Sequence[AdapterFile]) -> None:
        """Begins to read LoRAs that the next run needs, without waiting for them."""

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

    def preload(self, adapters: Sequence[AdapterFile]) -> None:
        Thread(target=self._read, args=(adapters,), name="preload", daemon=True).start()

    def _read(self, adapters: Sequence[AdapterFile]) -> None:
        from keyreel.engine.devices import make_current

        make_current(self.model.device)
        # An error belongs to the run that reads them again, if it still comes.
        with suppress(Exception):
            for adapter in adapters:
                self.model.adapters.read(adapter, self.model.transformer)

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
    with Encoder() as encoder:
        while True:
            order = channel.receive()
            if not isinstance(order, Run):
                _obey(order, engine, encoder)
                continue
            if failed := perform(engine, order, channel, encoder):
                channel.send(failed)
            if isinstance(failed, Failed) and failed.poisoned:
                return


def perform(engine: Engine, run: Run, channel: Channel, encoder: Encoder) -> Stopped | Refused | Failed | None:
    """Draws the video of `run`, sending its events and Drawn. Returns how that failed, if it did.

    After Drawn, the thread that writes the video sends Finished, Stopped or Unwritten.
    """
    try:
        _draw(engine, run, channel, encoder)
    except _StoppedError:
        return Stopped(run.id)
    except RequestError as error:
        return Refused(error.problems)
    except (EOFError, ConnectionError):
        raise
    except Exception as error:  # noqa: BLE001 - a model may raise anything, and the supervisor needs an answer
        traceback.print_exc()
        # The device is tested by using it, because the wording of driver errors changes between versions.
        return Failed(_describe(error), poisoned=not engine.is_healthy())
    return None


def _draw(engine: Engine, run: Run, channel: Channel, encoder: Encoder) -> None:
    channel.send(Stage("text"))
    job = replace(unspool(run.spooled, run.folder), previews=True, checkpoints=run.checkpoint_every > 0)
    resume = read_checkpoint(run.resume).checkpoint if run.resume else None

    def save(checkpoint: Checkpoint) -> None:
        path = checkpoint_path(run.folder)
        write_checkpoint(checkpoint, run.identity, path)
        channel.send(Checkpointed(path))

    with (
        encoder.video(run.id, Mp4Writer(run.video, job.size, job.frame_rate, run.metadata)) as video,
        CheckpointWriter(run.checkpoint_every, save) as checkpoints,
        closing(engine.run(job, resume)) as events,
    ):
        for event in events:
            match event:
                case Frames(pixels):
                    video.write(pixels)
                case Preview(pixels):
                    channel.send(Previewed(write_preview(pixels, run.folder)))
                case Checkpoint():
                    checkpoints.offer(event)
                case Stage() | Step() | Notice():
                    channel.send(event)
            while channel.has_message():
                order = channel.receive()
                if not isinstance(order, Stop) or order.id != run.id:
                    _obey(order, engine, encoder)
                    continue
                if order.keep:
                    checkpoints.write_newest()
                raise _StoppedError
    channel.send(Drawn(run.id))
    video.finish()
    video.when_done(partial(_report, run, channel))


def _obey(order: Message, engine: Engine, encoder: Encoder) -> None:
    """Obeys an order that is not about the run on the device."""
    match order:
        case Preload(adapters):
            engine.preload(adapters)
        case Stop(run_id, keep=False):
            encoder.discard(run_id)
        case _:
            pass  # a run that has ended, or is almost written: to draw it again would take longer


def _report(run: Run, channel: Channel, written: "Future[None]") -> None:
    """Tells how writing a video ended. Called in the thread that wrote it."""
    answer: Message
    try:
        written.result()
        answer = Finished(run.id, run.video.stat().st_size)
    except DISCARDED:
        answer = Stopped(run.id)
    except Exception as error:  # noqa: BLE001 - the supervisor needs an answer
        traceback.print_exception(error)
        answer = Unwritten(run.id, _describe(error))
    with suppress(ConnectionError):
        channel.send(answer)


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    main()
