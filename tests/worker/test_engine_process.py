"""The engine process, as a thread with a fake engine, at the end of a pipe."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from keyreel.checkpoints.hub import content_sha256
from keyreel.engine.adapter_cache import AdapterCache
from keyreel.engine.models import Model
from keyreel.engine.ranks import BrokenGroupError, Group
from keyreel.video.canvas import Size
from keyreel.video.job import AdapterFile, Job, Prepared
from keyreel.worker import engine_process
from keyreel.worker.channel import Channel
from keyreel.worker.engine_process import TorchEngine
from keyreel.worker.messages import (
    Drawn,
    Finished,
    Load,
    Message,
    Preload,
    Ready,
    Run,
    Spooled,
    Stop,
    Stopped,
    Unwritten,
)
from keyreel.worker.spool import pixels_folder
from tests.tiny_checkpoints import tiny_lora
from tests.worker.conftest import Gate
from tests.worker.fake_engine_process import FakeEngine

TIMEOUT = 30
Ended = Drawn | Finished | Stopped | Unwritten


class Supervisor:
    """The other end of the pipe."""

    def __init__(self, link: socket.socket, folder: Path, engine: FakeEngine) -> None:
        self.engine = engine
        self._link = link
        self._channel = Channel(link)
        self._folder = folder

    def load(self) -> None:
        self._channel.send(Load("fake", None, self._folder))
        assert isinstance(self._channel.receive(), Ready)

    def run(self, name: str, prompt: str = "a red circle") -> Path:
        """Orders a video, and returns where it is to be written."""
        folder = self._folder / name
        pixels_folder(folder).mkdir(parents=True)
        spooled = Spooled(Prepared(Job(prompt, "", Size(32, 32), 9, 2, 25, 5), {}), ())
        self._channel.send(Run(name, spooled, folder, folder / "video.mp4", {}))
        return folder / "video.mp4"

    def preload(self, *adapters: AdapterFile) -> None:
        self._channel.send(Preload(adapters))

    def stop(self, name: str, *, keep: bool = False) -> None:
        self._channel.send(Stop(name, keep))

    def close(self) -> None:
        with suppress(OSError):  # closed before
            self._link.shutdown(socket.SHUT_RDWR)

    def until(self, kind: type[Ended], *names: str) -> list[Message]:
        """Receives until these runs have ended in this way. Returns everything that has arrived."""
        seen: list[Message] = []
        while not {message.id for message in seen if isinstance(message, kind)} >= set(names):
            seen.append(self._channel.receive())
        return seen


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    ours, theirs = socket.socketpair()
    ours.settimeout(TIMEOUT)
    with ours, theirs:
        monkeypatch.setattr(Channel, "to_supervisor", classmethod(lambda _: Channel(theirs)))
        engine = FakeEngine(Load("fake", None, tmp_path))
        process = threading.Thread(target=engine_process.main, args=(lambda _: engine,))
        process.start()
        supervisor = Supervisor(ours, tmp_path, engine)
        supervisor.load()
        yield supervisor
        supervisor.close()
        process.join(TIMEOUT)
        assert not process.is_alive()


@pytest.fixture
def encode(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "encode")


def encoded_at(gate: Gate) -> str:
    """Returns a prompt whose frames pass the gate when they are encoded."""
    return gate.prompt.replace("gate=", "encode=")


def test_the_device_draws_the_next_video_before_the_first_is_written(supervisor: Supervisor, encode: Gate) -> None:
    first = supervisor.run("a", encoded_at(encode))
    supervisor.until(Drawn, "a")
    second = supervisor.run("b")
    supervisor.until(Drawn, "b")
    assert not first.exists()
    encode.open()
    ended = [message for message in supervisor.until(Finished, "a", "b") if not isinstance(message, Drawn)]
    assert ended == [Finished("a", first.stat().st_size), Finished("b", second.stat().st_size)]


@pytest.mark.parametrize("is_busy", [False, True], ids=["idle", "drawing"])
def test_a_drawn_video_that_nobody_wants_is_discarded(
    supervisor: Supervisor, gate: Gate, encode: Gate, *, is_busy: bool
) -> None:
    first = supervisor.run("a", encoded_at(encode))
    supervisor.until(Drawn, "a")
    if is_busy:
        supervisor.run("b", gate.prompt)
        gate.open()
    supervisor.stop("a")
    if not is_busy:
        supervisor.run("b")
    gate.open()
    seen = supervisor.until(Drawn, "b")  # so the order to stop has arrived
    encode.open()
    seen += supervisor.until(Finished, "b")
    assert Stopped("a") in seen
    assert not first.exists()


def test_a_drawn_video_that_would_have_to_be_repeated_is_finished(supervisor: Supervisor, encode: Gate) -> None:
    first = supervisor.run("a", encoded_at(encode))
    supervisor.until(Drawn, "a")
    supervisor.stop("a", keep=True)
    supervisor.run("b")
    supervisor.until(Drawn, "b")
    encode.open()
    supervisor.until(Finished, "a", "b")
    assert first.exists()


def test_a_video_that_cannot_be_written_does_not_stop_the_process(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.run("a", f"encode={tmp_path / 'missing'}")
    assert supervisor.until(Unwritten, "a")[-1] == Unwritten(
        "a", f"FileNotFoundError: [Errno 2] No such file or directory: '{tmp_path / 'missing'}'"
    )
    supervisor.run("b")
    supervisor.until(Finished, "b")


def test_the_pipe_may_close_while_a_video_is_written(supervisor: Supervisor, encode: Gate) -> None:
    """The process then ends without finishing it, as the fixture checks."""
    supervisor.run("a", encoded_at(encode))
    supervisor.until(Drawn, "a")
    supervisor.close()
    encode.open()


@pytest.mark.parametrize("is_busy", [False, True], ids=["idle", "drawing"])
def test_the_loras_of_the_next_run_are_read_beside_the_work(
    supervisor: Supervisor, gate: Gate, tmp_path: Path, *, is_busy: bool
) -> None:
    lora = AdapterFile(tmp_path / "lora", "lora", "0" * 64, 1.0, ("loras", 0, "path"))
    if is_busy:
        supervisor.run("a", gate.prompt)
        gate.open()
    supervisor.preload(lora)
    if not is_busy:
        supervisor.run("a")
    gate.open()
    supervisor.until(Finished, "a")
    assert supervisor.engine.preloaded == [lora]


def test_a_lora_that_was_preloaded_is_not_read_again(model: Model, tmp_path: Path) -> None:
    model = replace(model, adapters=AdapterCache(torch.device("cpu")))
    path = tiny_lora(tmp_path / "a.safetensors")
    lora = AdapterFile(path, path.name, content_sha256(path), 1.0, ("loras", 0, "path"))
    TorchEngine(model).preload([replace(lora, path=tmp_path / "missing")])  # the run itself reports such an error
    TorchEngine(model).preload([lora])
    for thread in threading.enumerate():
        if thread.name == "preload":
            thread.join(TIMEOUT)
    path.unlink()
    assert model.adapters.read(lora, model.transformer).branches


def test_an_engine_whose_ranks_have_lost_each_other_is_not_healthy(model: Model) -> None:
    """The supervisor replaces it, because no exchange of its ranks would end."""
    engine = TorchEngine(replace(model, group=Group()))
    assert engine.is_healthy()
    group = Group(0, 2)
    with pytest.raises(BrokenGroupError), group.drawing(lambda: None):
        raise MemoryError
    assert not TorchEngine(replace(model, group=group)).is_healthy()
