"""Streamed blocks compute the same bytes as blocks that stay on the device."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress

import pytest
import torch
from torch import Tensor, nn

from keyreel.engine import blocks as blocks_module
from keyreel.engine.blocks import BlockStream, Weight

CPU = torch.device("cpu")
COUNT = 6


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


def test_kept_blocks_are_spread_evenly(blocks: list[Block]) -> None:
    stream = BlockStream([block.to(torch.bfloat16) for block in blocks], CPU, torch.float32)
    stream.keep(2)
    here = [block.linear.weight.dtype == torch.float32 for block in blocks]
    assert here == [False, False, True, False, False, True]


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


def test_int8_is_close_and_does_not_depend_on_the_kept_blocks(blocks: list[Block]) -> None:
    exact = BlockStream(blocks, CPU, torch.float32)
    exact.keep(COUNT)
    expected = run(exact)
    rounded = BlockStream([*blocks], CPU, torch.float32, int8=True)
    results = []
    for count in (COUNT, 3, 0):
        rounded.keep(count)
        results.append(run(rounded))
    assert all(torch.equal(result, results[0]) for result in results)
    assert 0 < (results[0] - expected).abs().max() < 0.05 * expected.abs().max()


def test_int8_matrices_are_stored_in_a_byte_per_weight(blocks: list[Block]) -> None:
    rounded = BlockStream(blocks, CPU, torch.float32, int8=True)
    rounded.keep(3)
    for _ in rounded:
        pass
    for block in blocks:
        assert block.linear.weight.dtype == torch.int8
        assert block.scale_shift_table.dtype == block.norm.weight.dtype == torch.float32


def test_the_rounding_error_is_at_most_half_a_level() -> None:
    dense = torch.randn(16, 64) * torch.logspace(-3, 3, 16)[:, None]
    dense[5] = 0
    error = (Weight.quantised(dense).dense(torch.float32) - dense).abs()
    assert (error <= dense.abs().amax(dim=1, keepdim=True) / 254 * 1.001).all()
    assert torch.equal(error[5], torch.zeros(64))


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


@pytest.mark.parametrize("int8", [False, True])
def test_pinned_memory_does_not_change_the_output(
    blocks: list[Block], monkeypatch: pytest.MonkeyPatch, int8: bool
) -> None:
    pinned = []

    def pin_memory(tensor: Tensor) -> Tensor:
        copy = tensor.clone()
        pinned.append(copy)
        return copy

    monkeypatch.setattr(Tensor, "pin_memory", pin_memory)
    stream = BlockStream([block.to(torch.bfloat16) for block in blocks], CPU, torch.float32, int8=int8)
    stream.keep(COUNT)
    expected = run(stream)
    stream.keep(2, pinned=True)
    assert torch.equal(run(stream), expected)
    # Pinned weights already have the type that blocks compute in.
    assert int8 or {tensor.dtype for tensor in pinned} == {torch.float32}
    count = len(pinned)
    stream.keep(1, pinned=True)
    assert torch.equal(run(stream), expected)
    assert len(pinned) > count  # the block that no longer stays
    stream.keep(COUNT)
    assert torch.equal(run(stream), expected)
