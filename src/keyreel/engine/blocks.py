"""Blocks that are on the device only for their turn.

A model computes block after block, so a block's weights are needed for a moment only. Here they rest elsewhere: in the
model's mapped file or, on the way to a GPU, in pinned main memory, from where the next block comes while this one
computes. The numbers that a block computes with are the same ones.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight at rest: in any floating type, or as int8 `values` (out, in) with a `scale` (out, 1) in fp32."""

    values: Tensor
    scale: Tensor | None = None

    @classmethod
    def quantised(cls, dense: Tensor) -> "Weight":
        """Rounds to 255 levels per row, symmetric: off by at most 1/254 of the row's largest weight."""
        dense = dense.float()
        scale = dense.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / 127
        return cls((dense / scale).round().to(torch.int8), scale)

    def changed(self, change: Callable[[Tensor], Tensor]) -> "Weight":
        return Weight(change(self.values), None if self.scale is None else change(self.scale))

    def dense(self, dtype: torch.dtype) -> Tensor:
        """In the type that is computed in. The weight's own tensor where that is the same."""
        if self.scale is None:
            return self.values.to(dtype)
        return self.values.to(torch.float32).mul_(self.scale).to(dtype)


Weights = Mapping[str, Weight]
"""Of one block, by parameter."""


class BlockStream(nn.ModuleList):
    """A module's blocks. Iterating over them brings each one's weights to the device for as long as it is the current.

    So `for block in blocks` is all that a model needs to know of it.
    """

    def __init__(
        self, blocks: Iterable[nn.Module], device: torch.device, dtype: torch.dtype, *, int8: bool = False
    ) -> None:
        """blocks: on the CPU, with their weights as they lie in the file. int8: matrices rest in a byte per weight."""
        super().__init__(blocks)
        self._device = device
        self._dtype = dtype
        self._int8 = int8
        self._home: list[Weights] = [_at_home(block, int8=int8) for block in self._blocks]
        self._resting = list(self._home)
        self._kept: set[int] = set()
        self._copies = _side_stream(device)
        for index in range(len(self)):
            self._settle(index)

    def keep(self, count: int, *, pinned: bool = False) -> None:
        """So many blocks stay on the device, evenly spread: while they compute, the others have time to come.

        pinned: the others rest in pinned memory, from where copies to a GPU are fast and run beside its work.
        """
        total = len(self)
        kept = {index for index in range(total) if (index + 1) * count // total > index * count // total}
        # What leaves goes first. An allocation may fail at any point: each block is always wholly here or away.
        for index in set(range(total)) - kept:
            self._send_away(index, pinned=pinned)
        for index in kept - self._kept:
            self._bring(index)

    def __iter__(self) -> Iterator[nn.Module]:
        try:
            yield from self._walk()
        except BaseException:
            if self._copies is not None:
                self._copies.synchronize()  # what is on its way may not be written to memory that somebody else gets
            raise

    def _walk(self) -> Iterator[nn.Module]:
        coming = iter([index for index in range(len(self)) if index not in self._kept])
        under_way: deque[_Slot] = deque()

        def send(slot: _Slot) -> None:
            if (index := next(coming, None)) is not None:
                slot.send(self._resting[index])
                under_way.append(slot)

        for _ in range(1 if self._copies is None else 2):
            send(_Slot(self._device, self._copies))
        for index, block in enumerate(self._blocks):
            if index in self._kept:
                with self._at_work(index, self._resting[index]) if self._int8 else nullcontext():
                    yield block
                continue
            slot = under_way.popleft()
            with self._at_work(index, slot.receive()):
                yield block
            slot.leave()
            send(slot)

    @property
    def _blocks(self) -> list[nn.Module]:
        return [block for block in self._modules.values() if block is not None]

    def _bring(self, index: int) -> None:
        """For good."""
        home = self._home[index]
        if self._int8:
            self._resting[index] = {name: weight.changed(self._here) for name, weight in home.items()}
            self._settle(index)
        else:
            here = {name: weight.values.to(self._device, self._dtype, copy=True) for name, weight in home.items()}
            self._resting[index] = home
            for name, parameter in self._blocks[index].named_parameters():
                parameter.data = here[name]
        self._kept.add(index)

    def _send_away(self, index: int, *, pinned: bool) -> None:
        if index in self._kept or not pinned:
            self._resting[index] = self._home[index]
            self._kept.discard(index)
        self._settle(index)
        if pinned and self._resting[index] is self._home[index]:
            self._resting[index] = {name: self._pinned(weight) for name, weight in self._home[index].items()}
            self._settle(index)

    def _here(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device)

    def _pinned(self, weight: Weight) -> Weight:
        """In the type that is computed in, where that is not int8: nothing is left to be cast on the way."""
        if self._int8:
            return weight.changed(Tensor.pin_memory)
        return Weight(weight.dense(self._dtype).pin_memory())

    def _settle(self, index: int) -> None:
        """The block's parameters are what rests."""
        for name, parameter in self._blocks[index].named_parameters():
            parameter.data = self._resting[index][name].values

    @contextmanager
    def _at_work(self, index: int, weights: Weights) -> Iterator[None]:
        """The block computes with these weights."""
        try:
            for name, parameter in self._blocks[index].named_parameters():
                parameter.data = weights[name].dense(self._dtype)
            yield
        finally:
            self._settle(index)


class _Slot:
    """Room on the device for one block's weights. Copies to a GPU run on a stream of their own, beside its work.

    `send`, `receive`, `leave`, and again.
    """

    def __init__(self, device: torch.device, copies: torch.cuda.Stream | None) -> None:
        self._device = device
        self._copies = copies
        self._room: dict[str, Weight] = {}
        self._sent: dict[str, Weight] = {}
        self._free: torch.cuda.Event | None = None
        self._ready: torch.cuda.Event | None = None

    def send(self, weights: Weights) -> None:
        """Begins to bring the weights, as soon as those that were here before are no longer needed."""
        if new := {name: weight.changed(self._like) for name, weight in weights.items() if name not in self._room}:
            self._room |= new
            self._free = self._mark()  # memory is given out in the order of the device's work
        self._sent = {name: self._room[name] for name in weights}
        with self._on_the_side():
            for name, weight in weights.items():
                for room, tensor in zip(_tensors(self._sent[name]), _tensors(weight), strict=True):
                    room.copy_(tensor, non_blocking=True)
            if self._copies is not None:
                self._ready = self._copies.record_event()

    def receive(self) -> Weights:
        """The weights; what the device computes from here on waits until they are there."""
        if self._ready is not None:
            torch.cuda.current_stream(self._device).wait_event(self._ready)
        return self._sent

    def leave(self) -> None:
        """What was computed up to here was the last that needs the weights."""
        self._free = self._mark()

    def _like(self, tensor: Tensor) -> Tensor:
        return torch.empty_like(tensor, device=self._device)

    def _mark(self) -> torch.cuda.Event | None:
        if self._copies is None:
            return None
        event: torch.cuda.Event = torch.cuda.current_stream(self._device).record_event()
        return event

    def _on_the_side(self) -> AbstractContextManager[object]:
        if self._copies is None:
            return nullcontext()
        if self._free is not None:
            self._copies.wait_event(self._free)
        return torch.cuda.stream(self._copies)


def _side_stream(device: torch.device) -> torch.cuda.Stream | None:
    if device.type != "cuda":
        return None
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream


def _at_home(block: nn.Module, *, int8: bool) -> Weights:
    return {
        name: Weight.quantised(parameter) if int8 and _is_matrix(name, parameter) else Weight(parameter.data)
        for name, parameter in block.named_parameters()
    }


def _is_matrix(name: str, parameter: Tensor) -> bool:
    """Of a linear layer: nearly all of a block's weights. Tables and norms stay as they are."""
    return parameter.ndim == 2 and name.endswith(".weight")


def _tensors(weight: Weight) -> tuple[Tensor, ...]:
    return (weight.values,) if weight.scale is None else (weight.values, weight.scale)
