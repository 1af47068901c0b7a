"""The LoRAs that were used last stay in main memory, read and checked, so that the device need not wait for them."""

from collections.abc import Mapping

import torch
from diffusers import LTXVideoTransformer3DModel
from torch import Tensor

from keyreel.checkpoints.memory import GIB
from keyreel.engine.adapters import Adapter, Branch, read_adapter
from keyreel.engine.devices import main_memory
from keyreel.engine.recent import Recent
from keyreel.video.job import AdapterFile

MAX_BYTES = 4 * GIB
SHARE = 0.125
"""Part of main memory that the LoRAs may take, of all processes that hold the same model together."""

Branches = Mapping[str, Branch]


class AdapterCache:
    """Reads LoRAs for one model, by their content. On a GPU they lie in pinned memory, from which they load faster.

    ranks: the number of processes that share main memory for the same model.
    """

    def __init__(self, device: torch.device, ranks: int = 1) -> None:
        self._is_pinned = device.type == "cuda"
        self._recent: Recent[Branches] = Recent(min(MAX_BYTES, int(SHARE * main_memory()[1] / ranks)), _size)

    def read(self, file: AdapterFile, transformer: LTXVideoTransformer3DModel) -> Adapter:
        """Returns a LoRA. Raises RequestError unless all of it fits the transformer."""
        branches = self._recent.get(file.sha256)
        if branches is None:
            branches = read_adapter(file.path, transformer, file.scale, file.loc, file.name).branches
            if self._recent.has_room(branches):
                branches = {module: self._copied(branch) for module, branch in branches.items()}
                self._recent.put(file.sha256, branches)
        return Adapter(file.name, branches, file.scale)

    def _copied(self, branch: Branch) -> Branch:
        """Returns a copy in memory: the file's own tensors are mapped, and would change with it."""
        return Branch(self._copy(branch.a), self._copy(branch.b), branch.gain)

    def _copy(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory() if self._is_pinned else tensor.clone()


def _size(branches: Branches) -> int:
    return sum(branch.a.nbytes + branch.b.nbytes for branch in branches.values())
