"""The files in the object store: their owners, access rules and expiry.

A file's row is written before its object and deleted after it, so that the sweeper finds every object. A file whose
content never arrives (an interrupted upload, a video whose worker died) expires like any other.
"""

from collections.abc import Collection
from uuid import uuid4

from sqlalchemy import ColumnElement, Update, delete, insert, or_, select, update

from keyreel.store.database import Database
from keyreel.store.limits import check_upload
from keyreel.store.records import DAY, Content, File, NewFile
from keyreel.store.tables import file
from keyreel.store.usage import add_usage, arrived

PENDING = DAY
"""Seconds after which a file without content expires."""

_COLUMNS = [file.c[name] for name in File.__slots__]


class Files:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._now = database.now

    async def add(self, new: NewFile, *, upload: bool = False) -> File:
        """Adds a file. Its lifetime begins now if it has a size, otherwise when its content arrives.

        upload: whether a user sends it. Then it counts as use, and raises LimitError when it is more than the key may
        store or upload.
        """
        lifetime = PENDING if new.size is None else new.lifetime
        statement = insert(file).values(
            id=str(uuid4()),
            key_id=new.key_id,
            object=new.object,
            name=new.name,
            content_type=new.content_type,
            size=new.size,
            acl=new.acl,
            lifetime=new.lifetime,
            created=self._now,
            expires_at=None if lifetime is None else self._now + lifetime,
        )
        async with self._database.write() as connection:
            if upload:
                await check_upload(self._database, connection, new.key_id, new.size or 0)
                await add_usage(connection, self._now, new.key_id, arrived(new.size or 0))
            return File(*(await connection.execute(statement.returning(*_COLUMNS))).one())

    async def uploaded(self, file: File, size: int) -> None:
        """Records that the content of an upload, `size` bytes long, is in the object store.

        Raises LimitError when it is more than the key may store or upload: delete the content again.
        """
        async with self._database.write() as connection:
            await check_upload(self._database, connection, file.key_id, size, replaced=file.id)
            await connection.execute(content_update(Content(file.id, size), self._now))
            await add_usage(connection, self._now, file.key_id, arrived(size))

    async def check(self, file: File, size: int) -> None:
        """Raises LimitError if `size` bytes would be refused by `uploaded`, before they are sent."""
        async with self._database.write() as connection:
            await check_upload(self._database, connection, file.key_id, size, replaced=file.id)

    async def get(self, file_id: str) -> File | None:
        """Returns the file, or None if it does not exist or has expired."""
        not_expired = or_(file.c.expires_at.is_(None), file.c.expires_at > self._now)
        async with self._database.read() as connection:
            row = (await connection.execute(select(*_COLUMNS).where(file.c.id == file_id, not_expired))).one_or_none()
        return File(*row) if row else None

    async def expired(self, limit: int = 100, besides: Collection[str] = ()) -> list[File]:
        """Returns files that have expired, the earliest first, besides some ids. Their objects are to be deleted."""
        conditions = file.c.expires_at <= self._now, file.c.id.not_in(besides)
        statement = select(*_COLUMNS).where(*conditions).order_by(file.c.expires_at, file.c.id).limit(limit)
        async with self._database.read() as connection:
            return [File(*row) for row in await connection.execute(statement)]

    async def remove(self, file_id: str) -> None:
        """Deletes the file's row. Delete its object first."""
        async with self._database.write() as connection:
            await connection.execute(delete(file).where(file.c.id == file_id))


def content_update(content: Content, now: ColumnElement[float]) -> Update:
    """Returns the statement that sets a file's size and begins its lifetime."""
    values = {"size": content.size, "expires_at": now + file.c.lifetime}
    return update(file).where(file.c.id == content.file_id).values(values)
