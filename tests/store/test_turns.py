"""Keys take turns: nobody waits behind another key's backlog."""

from collections import Counter

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from keyreel.fal.outcomes import Success
from keyreel.store import Store
from keyreel.store.queue import RETRY_PAUSE
from keyreel.store.records import Lease, Priority, State
from keyreel.store.transitions import LEASE
from tests.store.conftest import Clock, wipe
from tests.store.steps import claim, live_requests, new_request, status, submit
from tests.store.test_state_machine import BROKEN, opened


async def waiting(store: Store) -> str:
    """Returns the first letters of the keys that wait, in order."""
    live = await live_requests(store)
    return "".join(each.key_id[0] for each in live if each.state is State.IN_QUEUE)


async def queue_up(store: Store, keys: str) -> None:
    for key_id in keys:
        await submit(store, key_id=key_id)


async def test_a_single_request_waits_for_one_of_another_keys_backlog(store: Store) -> None:
    await queue_up(store, "a" * 30)
    single = await store.queue.submit(new_request(key_id="b"))
    assert single.position == 1
    assert [(await claim(store)).key_id for _ in range(3)] == ["a", "b", "a"]


async def test_the_nth_request_of_a_key_waits_for_the_nth_of_each_other(store: Store) -> None:
    await queue_up(store, "aaaabbc")
    assert await waiting(store) == "abcabaa"


async def test_running_requests_count_as_turns_taken(store: Store) -> None:
    await queue_up(store, "aa")
    for _ in range(2):
        await claim(store)
    await queue_up(store, "bba")
    assert await waiting(store) == "bba"


async def test_a_key_that_comes_late_has_no_claim_to_the_past(store: Store) -> None:
    await queue_up(store, "a" * 6)
    for _ in range(4):
        await store.queue.finish(await claim(store), Success({}))
    await queue_up(store, "bbb")
    assert await waiting(store) == "ababb"


async def test_a_key_that_waits_for_each_result_gets_every_second_turn(store: Store) -> None:
    await queue_up(store, "a" * 6 + "b")
    served = ""
    for _ in range(6):
        lease = await claim(store)
        served += lease.key_id
        await store.queue.finish(lease, Success({}))
        if lease.key_id == "b":
            await queue_up(store, "b")
    assert served == "ababab"


async def test_cancelled_turns_are_not_left_to_others(store: Store) -> None:
    """Whoever comes next joins at the first turn that still waits, not at the first that was cancelled."""
    cancelled = [await submit(store, key_id="a") for _ in range(4)]
    await queue_up(store, "aa")
    for request_id in cancelled:
        await store.queue.cancel(request_id)
    await queue_up(store, "bbb")
    assert await waiting(store) == "ababb"


@pytest.mark.parametrize("way", ["retry", "hand back", "reap"])
async def test_a_request_that_returns_neither_loses_its_turn_nor_opens_it_to_others(
    store: Store, clock: Clock, way: str
) -> None:
    await queue_up(store, "aaaa")
    first = await claim(store)
    for _ in range(2):
        await store.queue.finish(await claim(store), Success({}))
    match way:
        case "retry":
            await store.queue.retry(first, BROKEN)
        case "hand back":
            await store.queue.hand_back(first)
        case _:
            await clock.advance(LEASE)
            await store.queue.reap()
    await queue_up(store, "bbb")
    assert (await status(store, first.id)).position == 0
    assert await waiting(store) == "ababb"
    await clock.advance(RETRY_PAUSE)
    assert (await claim(store)).id == first.id


async def test_lanes_have_turns_of_their_own(store: Store) -> None:
    await queue_up(store, "aaa")
    low = await store.queue.submit(new_request(key_id="a", priority=Priority.LOW))
    large = await store.queue.submit(new_request(key_id="a", pool="large"))
    other = await store.queue.submit(new_request(key_id="b", priority=Priority.LOW))
    assert (low.position, large.position, other.position) == (3, 0, 4)


async def test_a_key_reorders_its_own_requests_in_their_own_turns(store: Store) -> None:
    """Those of another key, of another lane, and those that have begun stay where they are."""
    one, two, three = [await submit(store, key_id="a") for _ in range(3)]
    other = await submit(store, key_id="b")
    low = await submit(store, key_id="a", priority=Priority.LOW)
    assert (await claim(store)).id == one
    await store.queue.reorder("a", [low, three, one, other, "unknown", two])
    assert [each.id for each in await live_requests(store)] == [one, other, three, two, low]
    assert await waiting(store) == "baaa"
    # What comes later goes after all of them, as before.
    last = await submit(store, key_id="a")
    assert [(await claim(store)).id for _ in range(5)] == [other, three, two, last, low]


async def test_a_reordered_backlog_opens_no_turn_to_its_key(store: Store) -> None:
    backlog = [await submit(store, key_id="a") for _ in range(4)]
    await store.queue.reorder("a", backlog[::-1])
    await queue_up(store, "bb")
    assert await waiting(store) == "ababaa"
    await store.queue.reorder("b", backlog)
    assert [(await claim(store)).id for _ in range(6)][::2] == [backlog[3], backlog[2], backlog[1]]


EVENTS = st.lists(st.sampled_from(["a", "b", "c", "claim", "finish"]), max_size=40)


@pytest.mark.slow
def test_no_key_waits_for_the_backlog_of_another(url: str) -> None:
    """When a key has n requests waiting or running, at most n + 1 of each other key wait before its next one.

    For all orders of submits, claims and finishes.
    """
    with opened(url) as (runner, store):

        @settings(max_examples=40)
        @given(events=EVENTS)
        def check(events: list[str]) -> None:
            runner.run(wipe(store.database))
            runner.run(play(store, events))

        check()


async def play(store: Store, events: list[str]) -> None:
    leases: list[Lease] = []
    for event in events:
        if event == "claim":
            leases += [lease] if (lease := await store.queue.claim("worker")) else []
        elif event == "finish":
            for lease in leases[:1]:
                await store.queue.finish(lease, Success({}))
            del leases[:1]
        else:
            own = sum(each.key_id == event for each in await live_requests(store))
            answer = await store.queue.submit(new_request(key_id=event))
            line = await waiting(store)
            ahead = Counter(line[: answer.position])
            assert all(count <= own + 1 for key_id, count in ahead.items() if key_id != event), (event, line)
