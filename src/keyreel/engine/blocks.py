"""Streaming blocks: their weights are on the device only while they compute.

A model computes one block after the other and needs a block's weights only briefly. In between they are stored in the
model's mapped file or, for a GPU, in pinned main memory, from which the next block is copied while the current one
computes. Streaming does not change the numbers that a block computes with.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor, nn

from keyreel.engine.devices import pinned
from keyreel.engine.quantised import QuantisedLinear

GOLDEN = (sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight as it rests, and the type in which its block computes with it."""

    stored: Tensor
    dtype: torch.dtype

    @property
    def pinned_size(self) -> int:
        """Bytes of pinned memory that it takes in the type that the block computes in. torch takes powers of two."""
        size = self.stored.numel() * self.dtype.itemsize
        return 1 << (size - 1).bit_length()


Weights = Mapping[str, Weight]
"""The weights of one block, by parameter name."""


def keeping_order(count: int) -> list[int]:
    """Returns blocks in the order in which they come to stay on a device.

    Any first few of them are spread evenly, and so are the others: multiples of the golden ratio, modulo 1, are.
    """
    return sorted(range(count), key=lambda index: (index + 1) * GOLDEN % 1)


class BlockStream(nn.ModuleList):
    """A module's blocks. During iteration the weights of the current block are on the device.

    A model needs no other code than `for block in blocks`.
    """

    def __init__(self, blocks: Iterable[nn.Module], device: torch.device, dtype: torch.dtype) -> None:
        """blocks: on the CPU, with their weights as in the file or quantised. dtype: computes those not quantised."""
        super().__init__(blocks)
        self._device = device
        self._in_file: list[Weights] = [_weights(block, dtype) for block in self._blocks]
        self._stored = list(self._in_file)
        self._resident: set[int] = set()
        self._pinned: set[int] = set()
        self._copy_stream = _side_stream(device)

    def keep(self, count: int, *, pin: int = 0) -> None:
        """Keeps `count` blocks on the device, evenly spread: while they compute, the others are copied.

        A change of `count` moves only the blocks by which it changes. pin: the bytes of other blocks that may be
        pinned. From pinned memory, copies to a GPU are fast and run beside its work.
        """
        order = keeping_order(len(self))
        kept, others = order[:count], order[count:]
        pinned = self._fitting(reversed(others), pin)
        # Evict first, to make room. An allocation may fail anywhere and must not leave a block partly on the device.
        for index in others:
            if index in self._resident or index in self._pinned - pinned:
                self._drop(index)
        for index in pinned - self._pinned:
            if not self._pin(index):
                break  # CUDA itself needs what is left
        for index in kept:
            if index not in self._resident:
                self._place(index)

    def __iter__(self) -> Iterator[nn.Module]:
        try:
            yield from self._walk()
        except BaseException:
            if self._copy_stream is not None:
                self._copy_stream.synchronize()  # a copy in flight must not write to memory that is freed and reused
            raise

    def _walk(self) -> Iterator[nn.Module]:
        pending = iter([index for index in range(len(self)) if index not in self._resident])
        in_flight: deque[_Slot] = deque()

        def send(slot: _Slot) -> None:
            if (index := next(pending, None)) is not None:
                slot.send(self._stored[index])
                in_flight.append(slot)

        for _ in range(1 if self._copy_stream is None else 2):
            send(_Slot(self._device, self._copy_stream))
        for index, block in enumerate(self._blocks):
            if index in self._resident:
                yield block
                continue
            slot = in_flight.popleft()
            with self._computing_with(index, slot.receive()):
                yield block
            slot.release()
            send(slot)

    @property
    def _blocks(self) -> list[nn.Module]:
        return [block for block in self._modules.values() if block is not None]

    def _fitting(self, indices: Iterable[int], limit: int) -> set[int]:
        """Returns the first blocks that together take at most `limit` bytes."""
        fitting: set[int] = set()
        for index in indices:
            limit -= sum(weight.pinned_size for weight in self._in_file[index].values())
            if limit < 0:
                break
            fitting.add(index)
        return fitting

    def _place(self, index: int) -> None:
        """Puts a block on the device, where it stays."""
        copies = {name: _copied(weight, self._device) for name, weight in self._in_file[index].items()}
        self._stored[index] = self._in_file[index]
        self._pinned.discard(index)
        for name, parameter in self._blocks[index].named_parameters():
            parameter.data = copies[name]
        self._resident.add(index)

    def _pin(self, index: int) -> bool:
        """Copies a block into pinned memory, or returns False if the system gives no more of it.

        Casts it now, so that no later copy has to.
        """
        copies = {}
        for name, weight in self._in_file[index].items():
            source = weight.stored.to(weight.dtype)
            copies[name] = Weight(pinned(source), weight.dtype)
            if copies[name].stored is source:
                return False
        self._stored[index] = copies
        self._pinned.add(index)
        self._restore(index)
        return True

    def _drop(self, index: int) -> None:
        """Gives up what a block has on the device or in pinned memory."""
        self._stored[index] = self._in_file[index]
        self._resident.discard(index)
        self._pinned.discard(index)
        self._restore(index)

    def _restore(self, index: int) -> None:
        """Points the block's parameters to its stored weights."""
        for name, parameter in self._blocks[index].named_parameters():
            parameter.data = self._stored[index][name].stored

    @contextmanager
    def _computing_with(self, index: int, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Points the block's parameters to these weights within the context."""
        try:
            for name, parameter in self._blocks[index].named_parameters():
                parameter.data = weights[name]
            yield
        finally:
            self._restore(index)


class _Slot:
    """A buffer on the device for one block's weights. Copies to a GPU run on their own stream, beside its work.

    Call `send`, `receive` and `release` in this order, then `send` again.
    """

    def __init__(self, device: torch.device, copy_stream: torch.cuda.Stream | None) -> None:
        self._device = device
        self._copy_stream = copy_stream
        self._buffers: dict[str, Tensor] = {}
        self._sent: dict[str, Tensor] = {}
        self._released: torch.cuda.Event | None = None
        self._arrived: torch.cuda.Event | None = None

    def send(self, weights: Weights) -> None:
        """Starts the copy of the weights. On a GPU the copy waits until the previous weights have been released."""
        if new := {name: self._allocate(weight) for name, weight in weights.items() if name not in self._buffers}:
            self._buffers |= new
            self._released = self._record_event()  # new memory may still be in use by work queued earlier
        self._sent = {name: self._buffers[name] for name in weights}
        with self._on_copy_stream():
            for name, weight in weights.items():
                # MPS would read the narrowed weight after it has been freed, if it did not wait.
                self._sent[name].copy_(_narrowed(weight), non_blocking=self._copy_stream is not None)
            if self._copy_stream is not None:
                self._arrived = self._copy_stream.record_event()

    def receive(self) -> Mapping[str, Tensor]:
        """Returns the weights. Work that is queued from here on waits until they have arrived."""
        if self._arrived is not None:
            torch.cuda.current_stream(self._device).wait_event(self._arrived)
        return self._sent

    def release(self) -> None:
        """Allows the next `send` to overwrite the weights once the work queued so far is done."""
        self._released = self._record_event()

    def _allocate(self, weight: Weight) -> Tensor:
        return torch.empty_like(weight.stored, dtype=weight.dtype, device=self._device)

    def _record_event(self) -> torch.cuda.Event | None:
        if self._copy_stream is None:
            return None
        event: torch.cuda.Event = torch.cuda.current_stream(self._device).record_event()
        return event

    def _on_copy_stream(self) -> AbstractContextManager[object]:
        if self._copy_stream is None:
            return nullcontext()
        if self._released is not None:
            self._copy_stream.wait_event(self._released)
        return torch.cuda.stream(self._copy_stream)


def _side_stream(device: torch.device) -> torch.cuda.Stream | None:
    if device.type != "cuda":
        return None
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream


def _weights(block: nn.Module, dtype: torch.dtype) -> Weights:
    """Returns the weights of a block at rest. A quantised weight and its scale keep their types."""
    kept = {
        f"{path}.{name}"
        for path, layer in block.named_modules()
        if isinstance(layer, QuantisedLinear)
        for name in ("weight", "scale")
    }
    return {
        name: Weight(parameter.data, parameter.dtype if name in kept else dtype)
        for name, parameter in block.named_parameters()
    }


def _narrowed(weight: Weight) -> Tensor:
    """Casts a weight here if that makes it smaller. Then less is copied, and the device never holds the wider type."""
    return weight.stored.to(weight.dtype) if weight.stored.dtype.itemsize > weight.dtype.itemsize else weight.stored


def _copied(weight: Weight, device: torch.device) -> Tensor:
    """Copies a weight to the device, which may be the CPU: weights at rest are mapped from a file, if not quantised."""
    return weight.stored.to(device, weight.dtype, copy=weight.stored.dtype.itemsize > 1)
