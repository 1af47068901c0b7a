"""What all processes at one database must have in common."""

from sqlalchemy import insert, select

from keyreel.store.database import Database
from keyreel.store.tables import installation

_ROW = 1


class Installation:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def check_fingerprint(self, fingerprint: str) -> bool:
        """Records the fingerprint of the fleet's secret. Returns False if another one is recorded."""
        async with self._database.write() as connection:
            await self._database.serialise(connection, "installation")
            recorded = await connection.scalar(select(installation.c.fingerprint))
            if recorded is None:
                await connection.execute(insert(installation).values(id=_ROW, fingerprint=fingerprint))
            return recorded in (None, fingerprint)
