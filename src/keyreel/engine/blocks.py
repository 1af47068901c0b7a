"""Streaming blocks: their weights are on the device only while they compute.

A model computes one block after the other and needs a block's weights only briefly. In between they are stored in the
model's mapped file or, for a GPU, in pinned main memory, from which the next block is copied while the current one
computes. Streaming does not change the numbers that a block computes with.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Weight:
    """A stored weight: in any floating type, or as int8 `values` (out, in) with a `scale` (out, 1) in fp32."""

    values: Tensor
    scale: Tensor | None = None

    @classmethod
    def quantised(cls, dense: Tensor) -> "Weight":
        """Rounds to 255 symmetric levels per row. The error is at most 1/254 of the row's largest weight."""
        dense = dense.float()
        scale = dense.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / 127
        return cls((dense / scale).round().to(torch.int8), scale)

    def apply(self, function: Callable[[Tensor], Tensor]) -> "Weight":
        return Weight(function(self.values), None if self.scale is None else function(self.scale))

    def dense(self, dtype: torch.dtype) -> Tensor:
        """Returns the weight in `dtype`. Copies nothing if it is stored in that type."""
        if self.scale is None:
            return self.values.to(dtype)
        return self.values.to(torch.float32).mul_(self.scale).to(dtype)


Weights = Mapping[str, Weight]
"""The weights of one block, by parameter name."""


class BlockStream(nn.ModuleList):
    """A module's blocks. During iteration the weights of the current block are on the device.

    A model needs no other code than `for block in blocks`.
    """

    def __init__(
        self, blocks: Iterable[nn.Module], device: torch.device, dtype: torch.dtype, *, int8: bool = False
    ) -> None:
        """blocks: on the CPU, with their weights as in the file. int8: stores matrices in one byte per weight."""
        super().__init__(blocks)
        self._device = device
        self._dtype = dtype
        self._int8 = int8
        self._in_file: list[Weights] = [_stored(block, int8=int8) for block in self._blocks]
        self._stored = list(self._in_file)
        self._resident: set[int] = set()
        self._copy_stream = _side_stream(device)
        for index in range(len(self)):
            self._restore(index)

    def keep(self, count: int, *, pinned: bool = False) -> None:
        """Keeps `count` blocks on the device, evenly spread: while they compute, the others are copied.

        pinned: stores the others in pinned memory, from which copies to a GPU are fast and run beside its work.
        """
        total = len(self)
        kept = {index for index in range(total) if (index + 1) * count // total > index * count // total}
        # Evict first, to make room. An allocation may fail anywhere and must not leave a block partly on the device.
        for index in set(range(total)) - kept:
            self._evict(index, pinned=pinned)
        for index in kept - self._resident:
            self._make_resident(index)

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
                with self._computing_with(index, self._stored[index]) if self._int8 else nullcontext():
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

    def _make_resident(self, index: int) -> None:
        """Puts a block on the device, where it stays."""
        source = self._in_file[index]
        if self._int8:
            self._stored[index] = {name: weight.apply(self._to_device) for name, weight in source.items()}
            self._restore(index)
        else:
            copies = {name: weight.values.to(self._device, self._dtype, copy=True) for name, weight in source.items()}
            self._stored[index] = source
            for name, parameter in self._blocks[index].named_parameters():
                parameter.data = copies[name]
        self._resident.add(index)

    def _evict(self, index: int, *, pinned: bool) -> None:
        """Takes a block off the device and, if asked, into pinned memory."""
        if index in self._resident or not pinned:
            self._stored[index] = self._in_file[index]
            self._resident.discard(index)
        self._restore(index)
        if pinned and self._stored[index] is self._in_file[index]:
            self._stored[index] = {name: self._pin(weight) for name, weight in self._in_file[index].items()}
            self._restore(index)

    def _to_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device)

    def _pin(self, weight: Weight) -> Weight:
        """Copies a weight into pinned memory. Casts it now, unless it is int8, so that no copy has to cast."""
        if self._int8:
            return weight.apply(Tensor.pin_memory)
        return Weight(weight.dense(self._dtype).pin_memory())

    def _restore(self, index: int) -> None:
        """Points the block's parameters to its stored weights."""
        for name, parameter in self._blocks[index].named_parameters():
            parameter.data = self._stored[index][name].values

    @contextmanager
    def _computing_with(self, index: int, weights: Weights) -> Iterator[None]:
        """Points the block's parameters to these weights within the context."""
        try:
            for name, parameter in self._blocks[index].named_parameters():
                parameter.data = weights[name].dense(self._dtype)
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
        self._buffers: dict[str, Weight] = {}
        self._sent: dict[str, Weight] = {}
        self._released: torch.cuda.Event | None = None
        self._arrived: torch.cuda.Event | None = None

    def send(self, weights: Weights) -> None:
        """Starts the copy of the weights. On a GPU the copy waits until the previous weights have been released."""
        if new := {name: weight.apply(self._allocate) for name, weight in weights.items() if name not in self._buffers}:
            self._buffers |= new
            self._released = self._record_event()  # new memory may still be in use by work queued earlier
        self._sent = {name: self._buffers[name] for name in weights}
        with self._on_copy_stream():
            for name, weight in weights.items():
                for buffer, tensor in zip(_tensors(self._sent[name]), _tensors(weight), strict=True):
                    buffer.copy_(tensor, non_blocking=True)
            if self._copy_stream is not None:
                self._arrived = self._copy_stream.record_event()

    def receive(self) -> Weights:
        """Returns the weights. Work that is queued from here on waits until they have arrived."""
        if self._arrived is not None:
            torch.cuda.current_stream(self._device).wait_event(self._arrived)
        return self._sent

    def release(self) -> None:
        """Allows the next `send` to overwrite the weights once the work queued so far is done."""
        self._released = self._record_event()

    def _allocate(self, tensor: Tensor) -> Tensor:
        return torch.empty_like(tensor, device=self._device)

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


def _stored(block: nn.Module, *, int8: bool) -> Weights:
    return {
        name: Weight.quantised(parameter) if int8 and _is_matrix(name, parameter) else Weight(parameter.data)
        for name, parameter in block.named_parameters()
    }


def _is_matrix(name: str, parameter: Tensor) -> bool:
    """Whether this is a linear layer's matrix. These are nearly all of a block's weights."""
    return parameter.ndim == 2 and name.endswith(".weight")


def _tensors(weight: Weight) -> tuple[Tensor, ...]:
    return (weight.values,) if weight.scale is None else (weight.values, weight.scale)
