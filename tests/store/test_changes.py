"""Events of changes in one process."""

import asyncio

from keyreel.store.changes import Changes, Topic


async def test_a_change_wakes_those_who_wait_for_its_topic() -> None:
    changes = Changes()
    queued, cancel, any_change = changes.of(Topic.QUEUED), changes.of(Topic.CANCEL), changes.any
    changes.announce(Topic.QUEUED)
    assert queued.is_set()
    assert any_change.is_set()
    assert not cancel.is_set()
    assert not changes.of(Topic.QUEUED).is_set()


async def test_a_change_that_takes_effect_later_is_announced_again_then() -> None:
    changes = Changes()
    changes.announce(Topic.QUEUED, after=0.01)
    async with asyncio.timeout(5):
        await changes.of(Topic.QUEUED).wait()


async def test_each_topic_is_told_once_to_other_processes_and_progress_never() -> None:
    changes = Changes()
    for topic in (Topic.QUEUED, Topic.QUEUED, Topic.PROGRESS, Topic.STATE):
        changes.announce(topic)
    assert changes.to_tell.is_set()
    assert changes.take_untold() == {(Topic.QUEUED, ""), (Topic.STATE, "")}
    assert not changes.to_tell.is_set()
    assert changes.take_untold() == set()


async def test_what_other_processes_tell_is_not_told_again() -> None:
    changes = Changes()
    changes.wake(Topic.QUEUED)
    assert not changes.to_tell.is_set()


async def test_a_cancel_wakes_those_who_work_on_its_request() -> None:
    changes = Changes()
    mine, other = changes.cancel_of("mine"), changes.cancel_of("other")
    changes.announce(Topic.CANCEL, "mine")
    changes.announce(Topic.STATE)
    assert mine.is_set()
    assert not other.is_set()
    assert not changes.cancel_of("mine").is_set()
    assert (Topic.CANCEL, "mine") in changes.take_untold()


async def test_a_cancel_that_may_have_been_missed_wakes_all_who_work() -> None:
    changes = Changes()
    cancels = [changes.cancel_of(name) for name in ("one", "two")]
    changes.wake(Topic.CANCEL)
    assert all(cancel.is_set() for cancel in cancels)
