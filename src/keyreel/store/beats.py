"""The heartbeat of a running request: what a busy fleet writes most, so on PostgreSQL it is one statement."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Double, Select, Update, bindparam, column, func, insert, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from keyreel.store.records import LogLine
from keyreel.store.tables import CleanText, event, request

_LOG_COLUMNS = (event.c.request_id, event.c.attempt, event.c.time, event.c.level, event.c.message)


async def beat(
    connection: AsyncConnection, renewal: Update, lines: Sequence[LogLine], now: ColumnElement[float]
) -> bool | None:
    """Runs `renewal`, which matches at most one request, and adds lines to that request's log.

    Returns whether a cancel of the request was asked for, or None if nothing matched.
    """
    held = renewal.returning(request.c.id, request.c.attempt, request.c.cancel_requested)
    if connection.dialect.name == "postgresql":
        answer = (await connection.execute(_in_one_statement(held, now), _arrays(lines))).one_or_none()
        return None if answer is None else bool(answer.cancel_requested)
    row = (await connection.execute(held)).one_or_none()
    if row is None:
        return None
    if lines:
        time = now - bindparam("age")
        await connection.execute(
            insert(event).values(request_id=row.id, attempt=row.attempt, time=time),
            [{"age": line.age, "level": line.level, "message": line.message} for line in lines],
        )
    return bool(row.cancel_requested)


def _in_one_statement(renewal: Any, now: ColumnElement[float]) -> Select[tuple[bool]]:
    """Returns the same text for any number of lines, so that PostgreSQL parses it once for each connection."""
    held = renewal.cte("held")
    line = (
        func.unnest(
            bindparam("ages", type_=ARRAY(Double)),
            bindparam("levels", type_=ARRAY(CleanText)),
            bindparam("messages", type_=ARRAY(CleanText)),
        )
        .table_valued(column("age", Double), "level", "message", with_ordinality="number")
        .render_derived()
    )
    written = select(held.c.id, held.c.attempt, now - line.c.age, line.c.level, line.c.message)
    log = insert(event).from_select(_LOG_COLUMNS, written.join_from(held, line, true()).order_by(line.c.number))
    return select(held.c.cancel_requested).add_cte(log.cte("log"))


def _arrays(lines: Sequence[LogLine]) -> dict[str, list[Any]]:
    return {
        "ages": [line.age for line in lines],
        "levels": [line.level for line in lines],
        "messages": [line.message for line in lines],
    }
