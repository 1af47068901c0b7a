import asyncio

import pytest
from sqlalchemy import func, select

from keyreel.store.files import Files
from keyreel.store.records import File, NewFile
from keyreel.store.tables import file
from keyreel.worker.attempt_file import AttemptFile
from tests.worker.conftest import Bench

NEW = NewFile(key_id="key", object="previews/1/1.jpg", name="preview.jpg", content_type="image/jpeg")


class FilesThatWait(Files):
    """Files whose first row fails. The next one is added, but the caller waits for a moment longer."""

    failures = 1

    async def add(self, new: NewFile, *, upload: bool = False) -> File:
        if self.failures:
            self.failures -= 1
            raise OSError("away")
        added = await super().add(new, upload=upload)
        await asyncio.sleep(0)
        return added


async def rows(bench: Bench) -> int:
    async with bench.store.database.read() as connection:
        return (await connection.execute(select(func.count()).select_from(file))).scalar_one()


async def test_a_row_is_added_once_and_is_known_although_its_caller_was_cancelled(bench: Bench) -> None:
    kept = AttemptFile(FilesThatWait(bench.store.database), NEW)
    assert await kept.added() is None
    with pytest.raises(OSError, match="away"):
        await kept.get()
    assert await kept.added() is None
    caller = asyncio.create_task(kept.get())
    while not await rows(bench):
        await asyncio.sleep(0)
    caller.cancel()
    found = await kept.added()
    assert found is not None
    assert found == await kept.get()
    assert await rows(bench) == 1
