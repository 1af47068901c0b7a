"""Sessions of the page that ended early. The others need no row: their cookies are signed and expire."""

from sqlalchemy import delete, insert, select

from keyreel.store.audit import SERVER, Action, Actor, record
from keyreel.store.database import Database
from keyreel.store.tables import ended_session


class Sessions:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._now = database.now

    async def end(self, session_id: str, lifetime: float, by: Actor = SERVER) -> None:
        """Ends a session whose cookie would be valid for `lifetime` seconds more, at most. Forgets expired ones."""
        values = {"id": session_id, "expires_at": self._now + lifetime}
        async with self._database.write() as connection:
            expired = (ended_session.c.expires_at <= self._now) | (ended_session.c.id == session_id)
            await connection.execute(delete(ended_session).where(expired))
            await connection.execute(insert(ended_session).values(values))
            await record(connection, self._now, by, Action.SIGNED_OUT)

    async def has_ended(self, session_id: str) -> bool:
        async with self._database.read() as connection:
            found = select(ended_session.c.id).where(ended_session.c.id == session_id)
            return await connection.scalar(found) is not None
