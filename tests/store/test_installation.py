import asyncio

from keyreel.store import Store


async def test_the_first_fingerprint_is_recorded_and_others_are_refused(store: Store) -> None:
    check = store.installation.check_fingerprint
    assert await check("first")
    assert not await check("second")
    assert await check("first")
    assert not await check("second")


async def test_a_fingerprint_replaces_one_that_its_process_accepts(store: Store) -> None:
    check = store.installation.check_fingerprint
    assert await check("old")
    assert not await check("new", ["another"])
    assert await check("new", ["another", "old"])
    assert await check("old", ["new"]), "a process that was prepared for the change may restart during it"
    assert await check("new", ["old"])
    assert not await check("old")


async def test_of_processes_that_start_together_one_records_its_fingerprint(store: Store) -> None:
    fingerprints = [f"process {number}" for number in range(8)]
    accepted = await asyncio.gather(*map(store.installation.check_fingerprint, fingerprints))
    assert sum(accepted) == 1
    again = [await store.installation.check_fingerprint(fingerprint) for fingerprint in fingerprints]
    assert again == accepted
