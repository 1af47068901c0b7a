"""What all processes at one database must have in common."""

from collections.abc import Collection

from sqlalchemy import insert, select, update

from keyreel.store.database import Database
from keyreel.store.tables import installation

_ROW = 1


class Installation:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def check_fingerprint(self, fingerprint: str, accepted: Collection[str] = ()) -> bool:
        """Records the fingerprint of the fleet's secret, also in place of an accepted one.

        Returns False if another one is recorded.
        """
        async with self._database.write() as connection:
            await self._database.serialise(connection, "installation")
            recorded = await connection.scalar(select(installation.c.fingerprint))
            if recorded is None:
                await connection.execute(insert(installation).values(id=_ROW, fingerprint=fingerprint))
            elif recorded in accepted:
                await connection.execute(update(installation).values(fingerprint=fingerprint))
            return recorded in (None, fingerprint, *accepted)
