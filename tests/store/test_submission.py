from sqlalchemy import update

from keyreel.store import Store
from keyreel.store.submission import MAX_FAILURES, first_row, insert_request
from keyreel.store.tables import request
from tests.store.steps import live_requests, new_request, submit


def test_a_request_that_shall_not_be_retried_may_fail_once() -> None:
    for retry, failures in ((True, MAX_FAILURES), (False, 1)):
        assert first_row(new_request(retry=retry), "id")["max_failures"] == failures


async def test_requests_of_a_release_without_turns_keep_their_order(store: Store) -> None:
    """They go before requests with a turn, in the order of their submits."""
    for request_id in ("first", "second", "third"):
        async with store.database.write() as connection:
            await connection.execute(insert_request(store.database.now), first_row(new_request(), request_id))
            await connection.execute(update(request).values(turn=0))
    newer = await submit(store)
    assert [each.id for each in await live_requests(store)] == ["first", "second", "third", newer]
