"""Ranks: the processes that draw one video together, each with the whole model on a device of its own.

A step has up to three forwards. Where that is cheaper (`teams_for`), the ranks divide into as many teams, and each team
computes one forward. Within a team this is the sequence parallelism of DeepSpeed-Ulysses (arXiv 2309.14509): each rank
computes a share of the tokens. Most of the model treats tokens one by one. Self-attention needs all tokens but treats
heads one by one, so the ranks exchange tokens for heads before it and back after it. The shares of tokens and heads may
differ by one, so nothing is padded.
"""

import pickle
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import torch
from diffusers import LTXVideoTransformer3DModel
from torch import Tensor, distributed

from keyreel.errors import ModelError
from keyreel.video.recipes import Guidance

HOST = "127.0.0.1"
TIME_LIMIT = timedelta(seconds=100)
"""For one exchange. Less than a supervisor's patience with its engine process, so that the log says what hung."""
MOST_FORWARDS = 3
"""Of a step: the positive, the negative and the perturbed one."""
EXCHANGE_COST = 0.25
"""What the exchanges of a block take, as a part of the time in which a rank computes its share of it: a figure for GPUs
that are linked by PCIe. With NVLink it is less."""
GO, HALT = "go", "halt"


class HaltedError(Exception):
    """Rank 0 has stopped drawing this video."""


class BrokenGroupError(Exception):
    """Rank 0 failed while the other ranks may be waiting for it in an exchange. Only a new group can draw again."""


@dataclass(frozen=True, slots=True)
class Split:
    """How a step is split among the ranks: its forwards among teams, and the tokens among the ranks of each team.

    counts: the tokens of each rank of a team. rank: this one's place in its team. team: which of the `teams` it is in.
    connection: of the team, if it is not of all ranks.
    """

    counts: tuple[int, ...]
    rank: int
    teams: int = 1
    team: int = 0
    connection: distributed.ProcessGroup | None = field(default=None, compare=False)

    def own(self, forwards: int) -> slice:
        """Returns which of so many forwards are this team's."""
        each = forwards // self.teams
        return slice(self.team * each, (self.team + 1) * each)

    def cut(self, tensor: Tensor, dim: int) -> Tensor:
        """Returns this rank's part of all tokens."""
        return torch.split(tensor, list(self.counts), dim)[self.rank]

    def heads(self, total: int) -> int:
        """Returns the number of this rank's heads in self-attention."""
        return shares(total, len(self.counts))[self.rank]

    def to_heads(self, heads: int, *vectors: Tensor) -> Sequence[Tensor]:
        """Exchanges tokens for heads: (1, n, D), this rank's tokens, to (1, N, d), all tokens of its heads."""
        if self._is_whole:
            return vectors
        widths = self._widths(heads, vectors[0].shape[2])
        kept = len(vectors) * widths[self.rank]  # values of each token that this rank keeps
        sent = _packed(torch.split(torch.cat(vectors).transpose(0, 1), widths, dim=2))  # each (n, vectors, d)
        own = self.counts[self.rank]
        sizes = [own * len(vectors) * width for width in widths]
        received = self._exchange(sent, sizes, [count * kept for count in self.counts])
        return received.view(1, sum(self.counts), len(vectors), -1).unbind(2)

    def to_tokens(self, heads: int, vectors: Tensor) -> Tensor:
        """Exchanges heads for tokens: (1, N, d) to (1, n, D)."""
        if self._is_whole:
            return vectors
        own = self.counts[self.rank]
        widths = self._widths(heads, vectors.shape[2] // self.heads(heads) * heads)
        sizes = [own * width for width in widths]
        sent = [count * widths[self.rank] for count in self.counts]
        received = self._exchange(vectors.flatten(), sent, sizes)
        parts = zip(torch.split(received, sizes), widths, strict=True)
        return torch.cat([part.view(1, own, width) for part, width in parts], dim=2)

    def joined(self, predictions: Sequence[Tensor]) -> list[Tensor]:
        """Returns to each rank the predictions of all forwards for all tokens: (1, n, D) to (1, N, D)."""
        if self._is_whole and self.teams == 1:
            return list(predictions)
        own = torch.cat(list(predictions)).transpose(0, 1)  # (n, own forwards, D)
        counts = self.counts * self.teams
        received = own.new_empty(sum(counts), *own.shape[1:])
        distributed.all_to_all_single(received, own.repeat(len(counts), 1, 1), list(counts), [len(own)] * len(counts))
        teams = torch.unflatten(received, 0, (self.teams, -1)).transpose(1, 2)  # (teams, forwards of each, N, D)
        return list(teams.flatten(0, 1)[:, None])

    @property
    def _is_whole(self) -> bool:
        return len(self.counts) == 1

    def _widths(self, heads: int, width: int) -> list[int]:
        """Returns the channels of each rank's heads, of `width` channels."""
        return [width // heads * share for share in shares(heads, len(self.counts))]

    def _exchange(self, values: Tensor, sent: Sequence[int], received: Sequence[int]) -> Tensor:
        """Sends values (sum of `sent`,), `sent[i]` of them to rank i of the team. Returns those received, in order."""
        result = values.new_empty(sum(received))
        distributed.all_to_all_single(result, values, list(received), list(sent), group=self.connection)
        return result


def _packed(parts: Sequence[Tensor]) -> Tensor:
    """Returns the values of all parts one after the other, with one copy where `flatten` and `cat` would make two."""
    sizes = [part.numel() for part in parts]
    result = parts[0].new_empty(sum(sizes))
    for room, part in zip(torch.split(result, sizes), parts, strict=True):
        room.view(part.shape).copy_(part)
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
        self._connections: dict[int, distributed.ProcessGroup] = {}

    def split(self, tokens: int, teams: int = 1) -> Split:
        """Splits a step of so many tokens. teams: see `teams_for`."""
        size = self.size // teams
        team, rank = divmod(self.rank, size)
        return Split(shares(tokens, size), rank, teams, team, self._connections.get(teams))

    def connect_teams(self) -> list[int]:
        """Connects the ranks of each team, which all must do. Returns the possible numbers of teams."""
        possible = [teams for teams in range(1, MOST_FORWARDS + 1) if self.size % teams == 0]
        for teams in possible:
            if 1 < teams < self.size:
                self._connections[teams], _ = distributed.new_subgroups(  # type: ignore[no-untyped-call]
                    self.size // teams, timeout=TIME_LIMIT
                )
        return possible

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


def shares(total: int, size: int) -> tuple[int, ...]:
    """Divides a number as evenly as possible."""
    each, rest = divmod(total, size)
    return tuple(each + (index < rest) for index in range(size))


def teams_for(guidance: Guidance, layers: int, ranks: int) -> int:
    """Returns the number of teams for a step: one per forward, or 1 if all ranks had better share all forwards.

    Teams of one rank exchange nothing but predictions, and these have the same bytes as those of a single rank. But the
    positive and the perturbed forward then compute alike what they have in common, the blocks before the first
    perturbed one.
    """
    count = guidance.forwards
    blocks = count * layers
    common = min(guidance.blocks, default=layers) if guidance.stg else 0
    if ranks % count:
        return 1
    saved = EXCHANGE_COST * (blocks - common) if ranks == count else 0
    return count if common <= saved else 1


def check_heads(transformer: LTXVideoTransformer3DModel, devices: Sequence[torch.device]) -> None:
    """Raises ModelError unless each device gets an attention head."""
    heads = transformer.config.num_attention_heads
    if heads < len(devices):
        raise ModelError(f"The model has {heads} attention heads, so at most {heads} devices can share it.")


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
        arrived = all(_arrives(group, teams, device) for teams in group.connect_teams())
    except RuntimeError as error:
        raise ModelError(f"The devices cannot work together: {error}") from error
    if not arrived:
        raise ModelError("The devices do not receive what they send to each other.")


def _arrives(group: Group, teams: int, device: torch.device) -> bool:
    """Returns whether numbers arrive that the ranks exchange as in a step of one token per rank of a team."""
    split = group.split(group.size // teams, teams)
    numbers = torch.arange(group.size, device=device).repeat(len(split.counts), 1)[None]
    own = split.cut(numbers, 1)
    back = split.to_tokens(group.size, *split.to_heads(group.size, own))
    return torch.equal(back, own) and all(torch.equal(all_, numbers) for all_ in split.joined([own]))
