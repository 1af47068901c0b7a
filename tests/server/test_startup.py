"""Settings that the server reads at its start: the operator's key and the allowed hosts."""

from pathlib import Path

import pytest

from keyreel.errors import KeyreelError
from keyreel.server.startup import ensure_key
from keyreel.store import open_store
from tests.cli.servers import serving, start_error, submit


@pytest.mark.slow
def test_the_operators_key_works_and_no_other_key_is_created(tmp_path: Path) -> None:
    key = "boss:a secret of the boss"
    with serving(tmp_path, KEYREEL_ADMIN_KEY=key) as (url, shown):
        assert shown == ""
        assert submit(url, key).status_code == 200
        assert (tmp_path / "keyreel.db").stat().st_mode & 0o077 == 0, "only its own user may read the database"


async def test_a_new_operators_key_replaces_the_one_before(tmp_path: Path) -> None:
    async with open_store(f"sqlite:///{tmp_path / 'keyreel.db'}") as store:
        user = await store.keys.create("KEYREEL")
        for key in ("one", "one", "two"):
            await ensure_key(store, f"{key}:a secret of the boss")
        valid = {key.id for key in await store.keys.list() if key.revoked is None}
        assert valid == {user.key.id, "two"}


async def test_a_short_secret_of_the_operator_is_refused(tmp_path: Path) -> None:
    async with open_store(f"sqlite:///{tmp_path / 'keyreel.db'}") as store:
        with pytest.raises(KeyreelError, match="too short: it needs 16 characters"):
            await ensure_key(store, "boss:x")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("KEYREEL_ADMIN_KEY", "boss", "KEYREEL_ADMIN_KEY must have the form id:secret."),
        (
            "KEYREEL_PRESIGN_SECONDS",
            "60",
            "KEYREEL_PRESIGN_SECONDS needs a bucket in KEYREEL_OBJECT_STORE: a folder has no links.",
        ),
        ("KEYREEL_ALLOW_HOSTS", "::1, a b", "KEYREEL_ALLOW_HOSTS: 'a b' is neither a network nor a host name."),
    ],
)
def test_an_invalid_setting_is_reported_at_the_start(tmp_path: Path, name: str, value: str, message: str) -> None:
    assert start_error("--port", "0", "--data-dir", str(tmp_path), **{name: value}) == message
