"""Whoever guesses at keys is slowed down. Nobody else is."""

from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fastapi import HTTPException

from keyreel.server import guesses
from keyreel.server.guesses import PER_ADDRESS, PER_KEY, Guesses
from tests.server.storage_api import URL, open_api


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def refusal(tried: Guesses, client: str = "a", key_id: str = "key") -> int | None:
    """Returns the seconds that the client is told to wait, or None if it may try."""
    try:
        tried.check(client, key_id)
    except HTTPException as error:
        assert error.status_code == 429
        assert error.headers
        return int(error.headers["Retry-After"])
    return None


def test_guesses_at_one_key_are_slowed() -> None:
    clock = Clock()
    tried = Guesses(clock)
    for _ in range(PER_KEY):
        assert refusal(tried) is None
        tried.was_wrong("a", "key")
    assert refusal(tried) == 60 / PER_KEY
    assert refusal(tried, "b") is None, "the owner may be at another address"
    assert refusal(tried, "a", "other") is None
    clock.now += 60 / PER_KEY + 0.001
    assert refusal(tried) is None
    tried.was_wrong("a", "key")
    assert refusal(tried) == 60 / PER_KEY
    clock.now += 120
    for _ in range(PER_KEY):
        assert refusal(tried) is None
        tried.was_wrong("a", "key")
    assert refusal(tried) is not None


def test_guesses_at_the_same_time_are_owed() -> None:
    tried = Guesses(Clock())
    for _ in range(2 * PER_KEY):
        tried.was_wrong("a", "key")
    assert refusal(tried) == 60 + 60 / PER_KEY


def test_guesses_at_many_keys_are_slowed_but_not_the_users_at_that_address() -> None:
    tried = Guesses(Clock())
    tried.was_right("a", "known")
    for number in range(PER_ADDRESS):
        assert refusal(tried, key_id=str(number)) is None
        tried.was_wrong("a", str(number))
    assert refusal(tried, key_id="new") is not None
    assert refusal(tried, key_id="known") is None
    for _ in range(PER_KEY):
        tried.was_wrong("a", "known")
    assert refusal(tried, key_id="known") is not None, "a known key is not to be guessed either"


def test_a_right_key_does_not_forgive_guesses() -> None:
    """Otherwise somebody who shares an address with the owner could guess for ever."""
    tried = Guesses(Clock())
    for _ in range(PER_KEY):
        tried.was_right("a", "key")
        tried.was_wrong("a", "key")
    assert refusal(tried) is not None


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guesses, "_CAPACITY", 3)
    tried = Guesses(Clock())
    for number in range(10):
        tried.was_right(str(number), "key")
        tried.was_wrong(str(number), "key")
    assert len(tried._right) == len(tried._pairs._full_at) == len(tried._clients._full_at) == 3


async def test_a_server_slows_guesses_by_key_and_address(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        wrong = {"Authorization": f"Key {api.key.key.id}:wrong"}
        codes = [(await api.client.get("/api/playground", headers=wrong)).status_code for _ in range(PER_KEY + 5)]
        assert codes == [401] * PER_KEY + [429] * 5
        refused = await api.client.get("/api/playground", headers=api.auth())
        assert refused.status_code == 429, "even the right one, or the answer would tell"
        assert 0 < int(refused.headers["retry-after"]) <= 60 / PER_KEY
        elsewhere = httpx.ASGITransport(api.app, client=("192.0.2.1", 1))
        async with httpx.AsyncClient(transport=elsewhere, base_url=URL) as owner:
            assert (await owner.get("/api/playground", headers=api.auth())).status_code == 200
        assert (await api.client.get("/api/playground", headers=api.auth(api.other))).status_code == 200
