"""The list of workers, for display. It does not decide who runs a request; the lease does."""

from dataclasses import asdict

from sqlalchemy import delete, insert, select, update

from keyreel.store.database import Database
from keyreel.store.records import DAY, Worker
from keyreel.store.tables import worker

REPORT_TIMEOUT = 30.0
"""Seconds without a report after which a worker counts as gone."""

_COLUMNS = [worker.c[name] for name in Worker.__slots__]


class Workers:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._now = database.now

    async def report(self, status: Worker) -> None:
        """Records a worker's state. The name identifies the worker."""
        values = {**asdict(status), "seen": self._now}
        async with self._database.write() as connection:
            await self._database.serialise(connection, f"report {status.name}")
            known = await connection.execute(update(worker).where(worker.c.name == status.name).values(**values))
            if not known.rowcount:
                # In a fleet every worker has a name of its own, and one that was killed could not remove its row.
                await connection.execute(delete(worker).where(worker.c.seen < self._now - DAY))
                await connection.execute(insert(worker).values(**values))

    async def alive(self) -> list[Worker]:
        """Returns the workers that have reported recently."""
        statement = select(*_COLUMNS).where(worker.c.seen > self._now - REPORT_TIMEOUT).order_by(worker.c.name)
        async with self._database.read() as connection:
            return [Worker(*row) for row in await connection.execute(statement)]

    async def remove(self, name: str) -> None:
        """Removes a worker that shuts down."""
        async with self._database.write() as connection:
            await connection.execute(delete(worker).where(worker.c.name == name))
