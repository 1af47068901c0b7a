"""The child: a process that owns a device, loads one model and makes one video after the other.

It knows no database and no network. Its order to leave is the end of the pipe.
"""

import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from keyreel.errors import ModelError, RequestError
from keyreel.events import Event, Frames, Notice, Preview, Stage, Step
from keyreel.job import Job, Pixels
from keyreel.media.mp4 import Mp4Writer
from keyreel.worker.channel import Channel
from keyreel.worker.messages import Failed, Finished, Load, LoadFailed, Previewed, Ready, Refused, Run, Stop, Stopped
from keyreel.worker.spool import unspool, write_preview

if TYPE_CHECKING:
    from keyreel.engine.models import Model

PROBE = 64
BATCHES_BEHIND = 2
"""How far encoding may fall behind decoding: frames wait in memory."""


class Engine(Protocol):
    """A loaded model. In tests it is a fake."""

    @property
    def facts(self) -> Ready: ...

    def run(self, job: Job) -> Generator[Event]: ...

    def is_sound(self) -> bool:
        """Whether the device still computes."""


class _StoppedError(Exception):
    pass


@dataclass(frozen=True)
class TorchEngine:
    """The real one. Imports inside: a fake in its place does without torch, which takes seconds to load."""

    model: "Model"

    @property
    def facts(self) -> Ready:
        from keyreel.engine.adapters import linear_shapes

        model = self.model
        return Ready(
            name=model.name,
            fingerprint=model.fingerprint,
            device=str(model.device),
            grid=model.grid,
            linears=linear_shapes(model.transformer),
            abilities=model.abilities,
        )

    def run(self, job: Job) -> Generator[Event]:
        from keyreel.engine.fitting import run

        return run(self.model, job)

    def is_sound(self) -> bool:
        """Multiplies two matrices whose product is known."""
        import torch

        try:
            ones = torch.ones(PROBE, PROBE, device=self.model.device)
            return (ones @ ones).sum().item() == PROBE**3
        except Exception:  # noqa: BLE001 - whatever it says, the device did not compute
            return False


def load_torch(order: Load) -> Engine:
    from keyreel.engine.models import load_model

    return TorchEngine(load_model(order.model, order.device, order.cache_dir, order.wishes))


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
        raise TypeError(f"{order} came before the model")
    try:
        return load(order)
    except ModelError as error:
        channel.send(LoadFailed(str(error)))
        return None


def _serve(engine: Engine, channel: Channel) -> None:
    while True:
        order = channel.receive()
        if not isinstance(order, Run):
            continue  # a Stop that came after the end
        answer = perform(engine, order, channel)
        channel.send(answer)
        if isinstance(answer, Failed) and answer.poisoned:
            return


def perform(engine: Engine, run: Run, channel: Channel) -> Finished | Stopped | Refused | Failed:
    try:
        return _make(engine, run, channel)
    except _StoppedError:
        return Stopped()
    except RequestError as error:
        return Refused(error.problems)
    except (EOFError, ConnectionError):
        raise
    except Exception as error:  # noqa: BLE001 - the process has to answer for whatever a model may raise
        traceback.print_exc()
        # Whether the device is still good is found out by using it: what drivers say in their errors changes.
        return Failed(f"{type(error).__name__}: {error}", poisoned=not engine.is_sound())


def _make(engine: Engine, run: Run, channel: Channel) -> Finished:
    channel.send(Stage("text"))
    job = replace(unspool(run.spooled, run.folder), previews=True)
    with (
        Mp4Writer(run.video, job.size, job.frame_rate, run.metadata) as writer,
        overlapped(writer.write) as write,
        closing(engine.run(job)) as events,
    ):
        for event in events:
            match event:
                case Frames(pixels):
                    write(pixels)
                case Preview(pixels):
                    channel.send(Previewed(write_preview(pixels, run.folder)))
                case Stage() | Step() | Notice():
                    channel.send(event)
            if channel.has_message() and channel.receive() == Stop(run.id):
                raise _StoppedError
    return Finished(run.video.stat().st_size)


@contextmanager
def overlapped(write: Callable[[Pixels], None]) -> Iterator[Callable[[Pixels], None]]:
    """The same function in a thread of its own, a few calls behind. Its errors come out of a later call, or the end."""
    pending: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1, "encoder") as thread:

        def submit(pixels: Pixels) -> None:
            pending.append(thread.submit(write, pixels))
            if len(pending) > BATCHES_BEHIND:
                pending.popleft().result()

        try:
            yield submit
            for call in pending:
                call.result()
        finally:
            thread.shutdown(cancel_futures=True)


if __name__ == "__main__":
    main()
