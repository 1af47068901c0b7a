"""A rank's process: draws videos as rank 0 says. It ends with rank 0, which starts it."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import distributed

from keyreel.engine.adapters import attached
from keyreel.engine.devices import choose_devices, make_current
from keyreel.engine.models import Model, load_model
from keyreel.engine.pipeline import Drawing, draw, read_adapters
from keyreel.engine.ranks import Group, HaltedError, connect, new_store, open_store
from keyreel.errors import ModelError
from keyreel.video.recipes import RECIPE_DEFAULTS, RecipeSettings


@dataclass(frozen=True, slots=True)
class Start:
    """The first message to a rank's process: the model to load (see `load_model`), and the port of the ranks' store."""

    model: str
    device: str
    cache_dir: Path
    settings: RecipeSettings
    rank: int
    port: int


class LeadingGroup(Group):
    """The group of rank 0, which owns the processes of the others.

    on_death: called in a thread with a message when one of them dies. An exchange with a dead rank may never end.
    """

    def __init__(self, processes: Sequence["RankProcess"], on_death: Callable[[str], object]) -> None:
        super().__init__(0, len(processes) + 1, [process.link for process in processes])
        self._processes = processes
        self._on_death = on_death
        self._is_closed = False
        for rank, process in enumerate(processes, 1):
            threading.Thread(target=self._watch, args=(rank, process), daemon=True).start()

    def close(self) -> None:
        """Ends the other ranks and disconnects from them."""
        self._is_closed = True
        for process in self._processes:
            process.kill()
        if not distributed.is_initialized():
            return
        if distributed.get_backend() == "nccl":
            # To tidy up, NCCL would wait for the ranks that are gone.
            distributed.distributed_c10d._abort_process_group()
        else:
            distributed.destroy_process_group()

    def _watch(self, rank: int, process: "RankProcess") -> None:
        status = process.popen.wait()
        if not self._is_closed:
            how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
            self._on_death(f"The process of rank {rank} {how}.")


class RankProcess:
    """Another rank's process and the pipe to it."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.link, theirs = Pipe()
        with theirs:
            command = [sys.executable, "-m", "keyreel.engine.rank_process", str(theirs.fileno())]
            # Its standard input closes when this process ends, in whatever way, and then the rank ends itself.
            # Rank 0 has downloaded the model when a rank loads it, so the others need neither the hub nor its token.
            variables = {name: value for name, value in os.environ.items() if name != "HF_TOKEN"} | {
                "HF_HUB_OFFLINE": "1"
            }
            self.popen = subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.PIPE, pass_fds=[theirs.fileno()], env=variables
            )

    def start_loading(self, start: Start) -> None:
        with suppress(ConnectionError):  # `wait_until_loaded` notices that the process is gone
            self.link.send_bytes(pickle.dumps(start))

    def wait_until_loaded(self) -> None:
        """Raises ModelError if the rank did not load the model."""
        try:
            problem = self.link.recv_bytes().decode()
        except (EOFError, ConnectionError):
            problem = "Its process ended."
        if problem:
            raise ModelError(f"Rank {self.rank} could not load the model: {problem}")

    def kill(self) -> None:
        self.popen.kill()
        with self.popen, self.link:
            pass  # waits for its end and closes its pipes


def load(
    name: str,
    device: str | None,
    cache_dir: Path,
    settings: RecipeSettings = RECIPE_DEFAULTS,
    *,
    on_death: Callable[[str], object],
) -> Model:
    """Loads a model like `load_model` and, for several devices, on a rank per device. Raises ModelError.

    on_death: see `LeadingGroup`.
    """
    devices = choose_devices(device)
    make_current(devices[0])
    with ExitStack() as undo:
        processes = [RankProcess(rank) for rank in range(1, len(devices))]
        for process in processes:
            undo.callback(process.kill)
        # Rank 0 loads first: a model that does not load is then reported once, and its files are in memory already.
        model = load_model(name, device, cache_dir, settings)
        if not processes:
            return model
        store, port = new_store()
        for process in processes:
            process.start_loading(Start(name, model.device_names, cache_dir, settings, process.rank, port))
        for process in processes:
            process.wait_until_loaded()
        group = LeadingGroup(processes, on_death)
        undo.callback(group.close)
        connect(group, model.device, store)
        undo.pop_all()
    return replace(model, group=group)


def main() -> None:
    # Ctrl-C and a service manager's stop reach every process, but rank 0 decides when to exit.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_rank_0, daemon=True).start()
    try:
        _serve(Connection(int(sys.argv[1])))
    except (EOFError, ConnectionError):
        pass  # rank 0 is gone
    except Exception:  # noqa: BLE001 - a model may raise anything
        traceback.print_exc()
    # At once: to tidy up first might wait for the ranks that wait for this one.
    os._exit(1)


def _end_with_rank_0() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def _serve(link: Connection) -> None:
    start = pickle.loads(link.recv_bytes())  # noqa: S301 - from the process that started this one
    if model := _load(start, link):
        while True:
            _follow(model)


def _load(start: Start, link: Connection) -> Model | None:
    try:
        make_current(choose_devices(start.device)[start.rank])
        model = load_model(start.model, start.device, start.cache_dir, start.settings, rank=start.rank)
    except ModelError as error:
        link.send_bytes(str(error).encode())
        return None
    link.send_bytes(b"")
    group = Group(start.rank, model.ranks, [link])
    connect(group, model.device, open_store(start.port))
    return replace(model, group=group)


@torch.inference_mode()
def _follow(model: Model) -> None:
    """Waits for an order of rank 0 and draws what it says, alike. The result is rank 0's to decode.

    An error ends the process, because the other ranks may be waiting for this one.
    """
    order = model.group.receive()
    if not isinstance(order, Drawing):
        return  # a halt that arrived after the last step
    model.placement.fit(order.work)
    texts = [text.to(model.device) for text in order.texts]
    try:
        with attached(model.transformer, read_adapters(model, order.job)):
            for _ in draw(model, order.job, order.recipe, texts, order.pins, order.resume):
                pass
    except HaltedError:
        return


if __name__ == "__main__":
    main()
