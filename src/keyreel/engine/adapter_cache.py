"""The LoRAs that were used last stay in main memory, read and checked, so that the device need not wait for them."""

from collections.abc import Mapping
from itertools import accumulate
from math import ceil
from threading import Lock

import torch
from diffusers import LTXVideoTransformer3DModel
from torch import Tensor

from keyreel.checkpoints.hub import file_sha256
from keyreel.checkpoints.memory import GIB
from keyreel.engine.adapters import Adapter, Branch, read_adapter
from keyreel.engine.devices import main_memory, pinned_bytes
from keyreel.engine.recent import Recent
from keyreel.video.job import AdapterFile

MAX_BYTES = 4 * GIB
ALIGNMENT = 64
SHARE = 0.125
"""Part of main memory that the LoRAs may take, of all processes that hold the same model together."""

Branches = Mapping[str, Branch]


class AdapterCache:
    """Reads LoRAs for one model, by their content. On a GPU they lie in pinned memory, from which they load faster.

    May be used in any thread. ranks: the number of processes that share main memory for the same model.
    """

    def __init__(self, device: torch.device, ranks: int = 1) -> None:
        self._is_pinned = device.type == "cuda"
        self._lock = Lock()
        self._recent: Recent[Branches] = Recent(min(MAX_BYTES, int(SHARE * main_memory()[1] / ranks)), _size)

    def read(self, file: AdapterFile, transformer: LTXVideoTransformer3DModel) -> Adapter:
        """Returns a LoRA. Raises RequestError unless all of it fits the transformer."""
        with self._lock:
            branches = self._recent.get(file.sha256) or self._read(file, transformer)
        return Adapter(file.name, branches, file.scale)

    def _read(self, file: AdapterFile, transformer: LTXVideoTransformer3DModel) -> Branches:
        """Keeps what it reads, unless the file was changed after it was fetched: others share it by its hash."""
        branches = read_adapter(file.path, transformer, file.scale, file.loc, file.name).branches
        if not self._recent.has_room(branches) or file_sha256(file.path) != file.sha256:
            return branches
        branches = self._copied(branches)
        self._recent.put(file.sha256, branches)
        return branches

    def _copied(self, branches: Branches) -> Branches:
        """Returns a copy in memory: the file's own tensors are mapped, and would change with it.

        It is one block, because a GPU may pause whenever memory is pinned.
        """
        ends = list(accumulate(_aligned(tensor) for branch in branches.values() for tensor in (branch.a, branch.b)))
        block = pinned_bytes(ends[-1]) if self._is_pinned else torch.empty(ends[-1], dtype=torch.uint8)
        starts = iter([0, *ends])

        def copy(tensor: Tensor) -> Tensor:
            start = next(starts)
            return block[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape).copy_(tensor)

        return {module: Branch(copy(branch.a), copy(branch.b), branch.gain) for module, branch in branches.items()}


def _aligned(tensor: Tensor) -> int:
    """Returns the bytes of a tensor in a block, so that the next one begins at a multiple of its type's size."""
    return ceil(tensor.nbytes / ALIGNMENT) * ALIGNMENT


def _size(branches: Branches) -> int:
    return sum(branch.a.nbytes + branch.b.nbytes for branch in branches.values())
