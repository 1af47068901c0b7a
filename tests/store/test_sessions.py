from sqlalchemy import func, select

from keyreel.store import Store
from keyreel.store.tables import ended_session
from tests.store.conftest import Clock


async def test_an_ended_session_is_known_until_its_cookie_expires(store: Store, clock: Clock) -> None:
    for _ in range(2):
        await store.sessions.end("a", 60)
    await clock.advance(59)
    assert await store.sessions.has_ended("a")
    assert not await store.sessions.has_ended("b")
    await clock.advance(1)
    await store.sessions.end("b", 60)
    async with store.database.read() as connection:
        assert await connection.scalar(select(func.count()).select_from(ended_session)) == 1
