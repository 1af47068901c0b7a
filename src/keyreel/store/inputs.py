"""The files that came as data URIs: which requests use them, and that the last of these takes them along."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, exists, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from keyreel.store.records import NewRequest
from keyreel.store.requests import not_expired
from keyreel.store.tables import file, request, request_input

FOLDER = "in/"
"""Where the objects of these files are. Uploads are elsewhere: they have lifetimes of their own."""


async def hold_inputs(connection: AsyncConnection, request_id: str, new: NewRequest) -> None:
    """Records which of its key's files the new request uses."""
    if not new.files:
        return
    # Only the key's own: with another key's request, its owner could not delete the file.
    own = file.c.id.in_(new.files), file.c.key_id == new.key_id, file.c.object.startswith(FOLDER)
    used = select(literal(request_id), file.c.id).where(*own)
    await connection.execute(insert(request_input).from_select(["request_id", "file_id"], used))


async def discard_inputs(connection: AsyncConnection, now: ColumnElement[float], request_ids: Sequence[str]) -> None:
    """Lets the files of requests that end now expire, except those that another request still uses."""
    ending = select(request_input.c.file_id).where(request_input.c.request_id.in_(request_ids))
    used = exists().where(
        request_input.c.file_id == file.c.id,
        request_input.c.request_id == request.c.id,
        request.c.id.not_in(request_ids),
        not_expired(request.c.expires_at, now),
    )
    await connection.execute(update(file).where(file.c.id.in_(ending), ~used).values(expires_at=now))
