"""Streamed blocks compute the same bytes as blocks that stay on the device."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from functools import partial
from math import ceil
from weakref import ref

import pytest
import torch
from torch import Tensor, nn

from keyreel.checkpoints.checkpoint import Quantisation
from keyreel.engine import blocks as blocks_module
from keyreel.engine.blocks import BlockStream, keeping_order
from keyreel.engine.quantised import TYPES, quantise_linears

CPU = torch.device("cpu")
COUNT = 6
MUCH = 10**9


class Block(nn.Module):
    """A linear layer, a norm and a table. The first block has an additional weight, as in T5."""

    def __init__(self, *, first: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.scale_shift_table = nn.Parameter(torch.randn(2, 8))
        self.bias_table = nn.Embedding(4, 8) if first else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x + self.linear(x)) * self.scale_shift_table[0] + self.scale_shift_table[1]
        return x if self.bias_table is None else x + self.bias_table.weight[0]


@pytest.fixture
def blocks() -> list[Block]:
    torch.manual_seed(0)
    return [Block(first=index == 0).requires_grad_(False) for index in range(COUNT)]


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def run(stream: nn.ModuleList) -> Tensor:
    x = torch.linspace(-1, 1, 24).view(3, 8)
    for block in stream:
        x = block(x)
    return x


@pytest.mark.parametrize("count", range(COUNT + 1))
@pytest.mark.parametrize("stored_dtype", [torch.float32, torch.bfloat16])
def test_the_output_does_not_depend_on_the_number_of_kept_blocks(
    blocks: list[Block], count: int, stored_dtype: torch.dtype
) -> None:
    whole = [block.to(stored_dtype) for block in blocks]
    stream = BlockStream(whole, CPU, torch.float32)
    stream.keep(COUNT)
    expected = run(stream)
    stream.keep(count)
    for _ in range(2):
        assert torch.equal(run(stream), expected)


@pytest.mark.parametrize("total", [24, 28, 48])
def test_kept_blocks_are_spread_evenly(total: int) -> None:
    """Of the blocks that stream, few lie side by side, since each is copied while kept ones compute."""
    order = keeping_order(total)
    assert sorted(order) == list(range(total))
    for count in range(1, total):
        kept = set(order[:count])
        runs = "".join("." if index in kept else "s" for index in range(total)).split(".")
        assert max(map(len, runs)) <= 2 * ceil((total - count) / (count + 1))


class Moves:
    """Counts the blocks that a stream places on the device, pins, and drops from either."""

    def __init__(self, stream: BlockStream, monkeypatch: pytest.MonkeyPatch) -> None:
        self.placed: list[int] = []
        self.pinned: list[int] = []
        self.dropped: list[int] = []
        for name, calls in (("_place", self.placed), ("_pin", self.pinned), ("_drop", self.dropped)):
            monkeypatch.setattr(stream, name, partial(self._call, getattr(stream, name), calls))
        monkeypatch.setattr(Tensor, "pin_memory", Tensor.clone)

    @staticmethod
    def _call(real: Callable[[int], bool | None], calls: list[int], index: int) -> bool | None:
        calls.append(index)
        return real(index)

    def of(self, change: Callable[[], None]) -> tuple[int, int, int]:
        """Returns how many blocks the change places, pins and drops."""
        kinds = (self.placed, self.pinned, self.dropped)
        for calls in kinds:
            calls.clear()
        change()
        placed, pinned, dropped = map(len, kinds)
        return placed, pinned, dropped


def many(count: int) -> BlockStream:
    return BlockStream([Block(first=False).requires_grad_(False) for _ in range(count)], CPU, torch.float32)


def test_a_plan_with_three_blocks_more_moves_three_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = many(48)
    moves = Moves(stream, monkeypatch)
    assert moves.of(lambda: stream.keep(30)) == (30, 0, 0)
    assert moves.of(lambda: stream.keep(33)) == (3, 0, 0)
    assert moves.of(lambda: stream.keep(30)) == (0, 0, 3)
    assert moves.of(lambda: stream.keep(30)) == (0, 0, 0)


def test_what_fits_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = many(48)
    moves = Moves(stream, monkeypatch)
    block = sum(parameter.nbytes for parameter in stream[0].parameters())
    assert moves.of(lambda: stream.keep(30, pin=10 * block + block // 2)) == (30, 10, 0)
    pinned = set(moves.pinned)
    # Pinned blocks stay so, whether more or fewer blocks stay on the device.
    assert moves.of(lambda: stream.keep(33, pin=10 * block)) == (3, 0, 0)
    assert moves.of(lambda: stream.keep(30, pin=12 * block)) == (0, 2, 3)
    assert pinned.isdisjoint(moves.pinned)
    assert moves.of(lambda: stream.keep(30, pin=11 * block)) == (0, 0, 1)
    assert moves.of(lambda: stream.keep(48, pin=11 * block)) == (18, 0, 0)
    assert moves.of(lambda: stream.keep(30, pin=11 * block)) == (0, 11, 18)


def test_pinned_memory_is_counted_as_torch_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its allocator rounds each tensor up to a power of two: three fifths more for T5's widest weights."""
    blocks = [nn.Linear(5 * 64, 8, bias=False).requires_grad_(False) for _ in range(8)]
    stream, pin = BlockStream(blocks, CPU, torch.float32), 2 * 2**14
    assert 3 * blocks[0].weight.nbytes < pin
    assert Moves(stream, monkeypatch).of(lambda: stream.keep(4, pin=pin)) == (4, 2, 0)


def test_where_no_more_can_be_pinned_the_other_blocks_come_from_the_file(
    blocks: list[Block], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of a block that fits only in part stays pinned: CUDA itself needs some pinned memory."""
    stream = BlockStream(blocks, CPU, torch.float32)
    expected = run(stream)
    room = [2 * sum(weight.nbytes for weight in blocks[1].parameters()) + blocks[1].linear.weight.nbytes]
    pinned: list[ref[Tensor]] = []

    def pin_memory(tensor: Tensor) -> Tensor:
        if tensor.nbytes > room[0]:
            raise torch.AcceleratorError("CUDA error: out of memory")
        room[0] -= tensor.nbytes
        copy = tensor.clone()
        pinned.append(ref(copy))
        return copy

    monkeypatch.setattr(Tensor, "pin_memory", pin_memory)
    stream.keep(1, pin=MUCH)
    assert len(stream._pinned) == 2
    weights = sum(len(list(stream._blocks[index].parameters())) for index in stream._pinned)
    assert sum(copy() is not None for copy in pinned) == weights
    assert torch.equal(run(stream), expected)


def test_only_the_current_block_is_on_the_device(blocks: list[Block]) -> None:
    stream = BlockStream([block.to(torch.bfloat16) for block in blocks], CPU, torch.float32)
    stored = [block.linear.weight.data_ptr() for block in blocks]
    for index, _ in enumerate(stream):
        working = [block.linear.weight.dtype == torch.float32 for block in blocks]
        assert working == [other == index for other in range(COUNT)]
    assert [block.linear.weight.data_ptr() for block in blocks] == stored


@pytest.mark.parametrize("leave", [lambda iterator: iterator.close(), lambda iterator: iterator.throw(MemoryError)])
def test_an_iteration_that_ends_early_frees_its_block(
    blocks: list[Block], leave: Callable[[Iterator[nn.Module]], object]
) -> None:
    stream = BlockStream([block.to(torch.bfloat16) for block in blocks], CPU, torch.float32)
    iterator = iter(stream)
    next(iterator)
    next(iterator)
    with suppress(MemoryError):
        leave(iterator)
    assert {weight.dtype for block in blocks for weight in block.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_quantised_blocks_do_not_depend_on_the_number_of_kept_ones(blocks: list[Block], kind: Quantisation) -> None:
    expected = run(nn.ModuleList(blocks))
    quantise_linears(nn.ModuleList(blocks), kind)
    stream = BlockStream(blocks, CPU, torch.float32)
    results = []
    for count in (COUNT, 3, 0):
        stream.keep(count)
        results.append(run(stream))
    assert all(torch.equal(result, results[0]) for result in results)
    assert 0 < (results[0] - expected).abs().max() < 0.1 * expected.abs().max()


def test_quantised_weights_and_scales_keep_their_types(blocks: list[Block]) -> None:
    quantise_linears(nn.ModuleList(blocks), "int8")
    stream = BlockStream(blocks, CPU, torch.bfloat16)
    stream.keep(3)
    for block in stream:
        types = {name: parameter.dtype for name, parameter in block.named_parameters()}
        assert (types.pop("linear.weight"), types.pop("linear.scale")) == (torch.int8, torch.float32)
        assert set(types.values()) == {torch.bfloat16}


def test_quantised_weights_that_stay_on_the_cpu_are_not_copied(blocks: list[Block]) -> None:
    quantise_linears(nn.ModuleList(blocks), "int8")
    before = [block.linear.weight.data_ptr() for block in blocks]
    BlockStream(blocks, CPU, torch.float32).keep(COUNT)
    assert [block.linear.weight.data_ptr() for block in blocks] == before


def test_blocks_travel_in_the_narrower_type(blocks: list[Block], monkeypatch: pytest.MonkeyPatch) -> None:
    """T5 lies on the hub in fp32. A device that computes in bf16 never holds it in fp32."""
    sent: list[tuple[torch.dtype, torch.dtype]] = []
    copy = Tensor.copy_

    def copy_(buffer: Tensor, source: Tensor, *, non_blocking: bool) -> Tensor:
        sent.append((source.dtype, buffer.dtype))
        return copy(buffer, source, non_blocking=non_blocking)

    monkeypatch.setattr(Tensor, "copy_", copy_)
    for stored, computed in [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)]:
        sent.clear()
        for _ in BlockStream([block.to(stored) for block in blocks], CPU, computed):
            pass
        assert set(sent) == {(torch.bfloat16, computed)}


def test_only_copies_beside_a_gpus_work_do_not_wait(
    blocks: list[Block], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """MPS would read a weight that was narrowed for the copy after its memory has been freed."""
    waits: list[bool] = []
    copy = Tensor.copy_

    def copy_(buffer: Tensor, source: Tensor, *, non_blocking: bool) -> Tensor:
        waits.append(not non_blocking)
        return copy(buffer, source)

    monkeypatch.setattr(Tensor, "copy_", copy_)
    run(BlockStream(blocks, CPU, torch.float32))
    assert set(waits) == {True}
    waits.clear()
    request.getfixturevalue("log")
    run(BlockStream(blocks, CPU, torch.float32))
    assert set(waits) == {False}


class FakeStream:
    """A CUDA stream whose work is done at once. It writes its calls to a log that all streams share."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log
        self.events = 0

    def record_event(self) -> str:
        self.events += 1
        self.log.append(f"{self.name} records {self.events}")
        return f"{self.name} {self.events}"

    def wait_event(self, event: str) -> None:
        self.log.append(f"{self.name} waits for {event}")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The log of two fake streams, which replace CUDA's."""
    calls: list[str] = []
    work, copies = FakeStream("work", calls), FakeStream("copies", calls)
    monkeypatch.setattr(blocks_module, "_side_stream", lambda _device: copies)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: work)
    monkeypatch.setattr(torch.cuda, "stream", lambda _stream: nullcontext())
    return calls


def test_copies_to_a_gpu_run_ahead_and_never_overwrite_a_block_in_use(blocks: list[Block], log: list[str]) -> None:
    """Checks the order of the calls on the two streams."""
    stream = BlockStream(blocks, CPU, torch.float32)
    reference = run(nn.ModuleList(blocks))
    log.clear()
    x = torch.linspace(-1, 1, 24).view(3, 8)
    for index, block in enumerate(stream):
        log.append(f"block {index}")
        x = block(x)
    assert torch.equal(x, reference)
    # Two blocks are copied before the first one computes, each into a separate buffer.
    first = log.index("block 0")
    assert [line for line in log[:first] if line.startswith("copies records")] == [
        "copies records 1",
        "copies records 2",
    ]
    for index in range(COUNT):
        # A block computes after it has been copied.
        assert log.index(f"work waits for copies {index + 1}") < log.index(f"block {index}")
    for index in range(2, COUNT):
        # Its buffer was used by the block two before it, and the copy waits until that one has computed.
        copied = log.index(f"copies records {index + 1}")
        computed = max(at for at, line in enumerate(log[:copied]) if line.startswith("work records"))
        assert log.index(f"block {index - 2}") < computed
        assert f"copies waits for {log[computed].replace(' records', '')}" in log[computed:copied]


@pytest.mark.parametrize("kind", [None, "int8", "fp8"])
def test_pinned_memory_does_not_change_the_output(
    blocks: list[Block], monkeypatch: pytest.MonkeyPatch, kind: Quantisation | None
) -> None:
    pinned = []

    def pin_memory(tensor: Tensor) -> Tensor:
        copy = tensor.clone()
        pinned.append(copy)
        return copy

    monkeypatch.setattr(Tensor, "pin_memory", pin_memory)
    blocks = [block.to(torch.bfloat16) for block in blocks]
    if kind:
        quantise_linears(nn.ModuleList(blocks), kind)
    stream = BlockStream(blocks, CPU, torch.float32)
    stream.keep(COUNT)
    expected = run(stream)
    stream.keep(2, pin=MUCH)
    assert torch.equal(run(stream), expected)
    # Pinned weights already have the type that blocks compute in.
    assert {tensor.dtype for tensor in pinned} == {torch.float32} | ({TYPES[kind]} if kind else set())
    count = len(pinned)
    stream.keep(1, pin=MUCH)
    assert torch.equal(run(stream), expected)
    assert len(pinned) > count  # the block that no longer stays
    stream.keep(COUNT)
    assert torch.equal(run(stream), expected)
