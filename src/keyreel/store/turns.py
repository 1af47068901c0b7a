"""Whose turn it is: start-time fair queueing over keys, with a turn that is stored at the submit.

A lane is one priority of one pool. Its requests go in the order of `turn`, then of `seq`. A new request gets the
highest of three numbers:

- the last turn that a worker was given: a key that comes late has no claim to the past;
- the lowest turn that waits, because the ones between may have been cancelled;
- one more than the last turn that its key has waiting or running.

So a key's n-th request goes after the n-th of each key that came before, and before their (n+1)-th ones: whoever comes
after 200 requests of one key waits for one of them.

Nothing changes a turn afterwards, but a key may deal the turns of its waiting requests out among them in another order.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Select, bindparam, func, literal_column, select, union_all

from keyreel.store.records import NewRequest, State
from keyreel.store.tables import AnyRow, request

_earlier = request.alias("earlier")
# A parameter would hide from the planner that the index on attempted requests serves the condition.
_attempted = _earlier.c.attempt > literal_column("0")


def order_of(requests: FromClause) -> tuple[ColumnElement[Any], ...]:
    """Returns the columns that put waiting requests of one pool in order."""
    return requests.c.priority, requests.c.turn, requests.c.seq


def _in_lane(turn: ColumnElement[int]) -> Select[int]:
    pool, priority = _earlier.c.pool == bindparam("of_pool"), _earlier.c.priority == bindparam("of_priority")
    return select(turn.label("turn")).where(pool, priority)


_lowest, _highest = func.min(_earlier.c.turn), func.max(_earlier.c.turn)
_of_key = _earlier.c.key_id == bindparam("of_key")
_parts = union_all(
    _in_lane(_highest).where(_attempted),
    _in_lane(_lowest).where(_earlier.c.state == State.IN_QUEUE),
    *(
        _in_lane(_highest + 1).where(_of_key, _earlier.c.state == state)
        for state in (State.IN_QUEUE, State.IN_PROGRESS)
    ),
).subquery()
next_turn = select(func.coalesce(func.max(_parts.c.turn), 0)).scalar_subquery()
"""The turn of a request that is about to be inserted, by `lane_of`. Each part reads one entry of an index."""


def lane_of(new: NewRequest) -> dict[str, str | int]:
    """Returns the parameters of `next_turn`."""
    return {"of_pool": new.pool, "of_priority": new.priority, "of_key": new.key_id}


def dealt_out(rows: Sequence[AnyRow]) -> dict[str, int]:
    """Returns the turn of each request, by id, when those of a lane share the lane's turns in the order of `rows`."""
    lanes: dict[tuple[str, int], list[AnyRow]] = {}
    for row in rows:
        lanes.setdefault((row.pool, row.priority), []).append(row)
    turns = [zip(lane, sorted(row.turn for row in lane), strict=True) for lane in lanes.values()]
    return {row.id: turn for lane in turns for row, turn in lane}
