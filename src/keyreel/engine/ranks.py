"""Ranks: the processes that draw one video together, each with the whole model on a device of its own.

This is the sequence parallelism of DeepSpeed-Ulysses (arXiv 2309.14509). Each rank computes a share of the tokens. Most
of the model treats tokens one by one. Self-attention needs all tokens but treats heads one by one, so the ranks
exchange tokens for heads before it and back after it. The shares may differ by one token, so nothing is padded.
"""

import pickle
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import torch
from diffusers import LTXVideoTransformer3DModel
from torch import Tensor, distributed

from keyreel.errors import ModelError

HOST = "127.0.0.1"
TIME_LIMIT = timedelta(seconds=100)
"""For one exchange. Less than a supervisor's patience with its engine process, so that the log says what hung."""
GO, HALT = "go", "halt"


class HaltedError(Exception):
    """Rank 0 has stopped drawing this video."""


class BrokenGroupError(Exception):
    """Rank 0 failed while the other ranks may be waiting for it in an exchange. Only a new group can draw again."""


@dataclass(frozen=True, slots=True)
class Split:
    """How tokens are split among the ranks. counts: the tokens of each rank. rank: this one."""

    counts: tuple[int, ...]
    rank: int

    def cut(self, tensor: Tensor, dim: int) -> Tensor:
        """Returns this rank's part of all tokens."""
        return torch.split(tensor, list(self.counts), dim)[self.rank]

    def to_heads(self, *vectors: Tensor) -> Sequence[Tensor]:
        """Exchanges tokens for heads: (1, n, D), this rank's tokens, to (1, N, D / R), all tokens of its heads."""
        if self._is_whole:
            return vectors
        heads = torch.unflatten(torch.cat(vectors), 2, (len(self.counts), -1))  # (vectors, n, R, D / R)
        return self._exchange(heads.permute(2, 1, 0, 3).flatten(0, 1), self._own, self.counts)[None].unbind(2)

    def to_tokens(self, vectors: Tensor) -> Tensor:
        """Exchanges heads for tokens: (1, N, D / R) to (1, n, D)."""
        if self._is_whole:
            return vectors
        received = self._exchange(vectors[0], self.counts, self._own)
        return torch.unflatten(received, 0, (len(self.counts), self.counts[self.rank])).transpose(0, 1).flatten(1)[None]

    def joined(self, vectors: Tensor) -> Tensor:
        """Returns all ranks' tokens to each rank: (1, n, D) to (1, N, D)."""
        if self._is_whole:
            return vectors
        return self._exchange(vectors[0].repeat(len(self.counts), 1), self._own, self.counts)[None]

    @property
    def _is_whole(self) -> bool:
        return len(self.counts) == 1

    @property
    def _own(self) -> tuple[int, ...]:
        return (self.counts[self.rank],) * len(self.counts)

    def _exchange(self, rows: Tensor, sent: Sequence[int], received: Sequence[int]) -> Tensor:
        """Sends rows (sum of `sent`, ...), `sent[i]` of them to rank i. Returns those received, in the ranks' order."""
        result = rows.new_empty(sum(received), *rows.shape[1:])
        distributed.all_to_all_single(result, rows.contiguous(), list(received), list(sent))
        return result


class Group:
    """The ranks of a model, as one of them sees them. By default there is only one.

    links: pipes, from rank 0 to each other rank, and from each other rank to rank 0.
    """

    def __init__(self, rank: int = 0, size: int = 1, links: Sequence[Connection] = ()) -> None:
        self.rank = rank
        self.size = size
        self.is_broken = False
        self._links = links

    def split(self, tokens: int) -> Split:
        """Splits a number of tokens as evenly as possible."""
        each, rest = divmod(tokens, self.size)
        return Split(tuple(each + (rank < rest) for rank in range(self.size)), self.rank)

    def begin_step(self) -> None:
        """On rank 0, lets the others begin the next step. On them, waits for that; raises HaltedError if it stopped."""
        if self.rank == 0:
            self._send(GO)
        elif self.receive() == HALT:
            raise HaltedError

    @contextmanager
    def drawing(self, order: Callable[[], object]) -> Iterator[None]:
        """Has the other ranks follow the order while rank 0 draws within the context. They stop when it stops."""
        if self._links:
            self._send(order())
        try:
            yield
        except GeneratorExit:  # between two steps, where no rank is in an exchange
            self._send(HALT)
            raise
        except Exception as error:
            if self.size == 1:
                raise
            self.is_broken = True
            raise BrokenGroupError(f"Rank 0 of {self.size} failed: {type(error).__name__}: {error}") from error

    def receive(self) -> Any:
        """Waits for what rank 0 sends. Raises EOFError when it is gone."""
        return pickle.loads(self._links[0].recv_bytes())  # noqa: S301 - rank 0 started this process

    def _send(self, message: object) -> None:
        if self._links:
            data = pickle.dumps(message)
            for link in self._links:
                link.send_bytes(data)


ALONE = Group()


def check_heads(transformer: LTXVideoTransformer3DModel, devices: Sequence[torch.device]) -> None:
    """Raises ModelError unless each device gets as many attention heads as the others."""
    heads = transformer.config.num_attention_heads
    if heads % len(devices):
        fitting = ", ".join(str(count) for count in range(1, heads + 1) if heads % count == 0)
        raise ModelError(
            f"The model has {heads} attention heads, which {len(devices)} devices cannot share evenly. "
            f"Numbers of devices that can: {fitting}."
        )


def new_store() -> tuple[Any, int]:
    """Returns the store over which the ranks find each other, and its port."""
    # A socket of ours, because the store's own would listen on every address of the machine.
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        return open_store(port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()), port


def open_store(port: int, **options: Any) -> Any:
    return distributed.TCPStore(HOST, port, timeout=TIME_LIMIT, **options)  # type: ignore[attr-defined]


def connect(group: Group, device: torch.device, store: Any) -> None:
    """Connects this process with the other ranks, which must do the same. Raises ModelError if that does not work."""
    is_cuda = device.type == "cuda"
    try:
        distributed.init_process_group(
            "nccl" if is_cuda else "gloo",
            store=store,
            rank=group.rank,
            world_size=group.size,
            timeout=TIME_LIMIT,
            device_id=device if is_cuda else None,
        )
        numbers = torch.arange(group.size, device=device)[None, :, None]
        split = group.split(group.size)
        arrived = torch.equal(split.joined(split.cut(numbers, 1)), numbers)
    except RuntimeError as error:
        raise ModelError(f"The devices cannot work together: {error}") from error
    if not arrived:
        raise ModelError("The devices do not receive what they send to each other.")
