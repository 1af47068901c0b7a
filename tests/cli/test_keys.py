"""`keyreel keys`, with and without a running server."""

import asyncio
import csv
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from keyreel.fal.outcomes import Success
from keyreel.store import open_store
from keyreel.store.records import Content, NewFile, NewRequest
from tests.cli.servers import manage_keys, serving, submit


@pytest.mark.slow
def test_keys_are_managed_with_and_without_a_server(tmp_path: Path) -> None:
    made = manage_keys(tmp_path, "create", "before").stdout.strip()
    assert re.fullmatch(r"[\w-]+:[0-9a-f]{64}", made)
    with serving(tmp_path) as (url, shown):
        assert shown == ""  # there is a key already
        assert submit(url, made).status_code == 200
        later = manage_keys(tmp_path, "create", "later", "--max-queued", "2", "--scope", "submit").stdout.strip()
        assert submit(url, later).status_code == 200
        assert "queued 2" in manage_keys(tmp_path, "list").stdout
        assert manage_keys(tmp_path, "limit", later.split(":")[0], "--max-queued", "1").exit_code == 0
        assert submit(url, later).status_code == 429
        period = ("--since", "2020-01-01", "--until", "2020-01-02")
        assert len(manage_keys(tmp_path, "usage", later.split(":")[0], *period).stdout.splitlines()) == 1
        assert manage_keys(tmp_path, "revoke", later.split(":")[0]).exit_code == 0
        assert submit(url, later).status_code == 401
        again = manage_keys(tmp_path, "revoke", later.split(":")[0])
        assert (again.exit_code, again.stderr) == (1, "There is no such key, or it was revoked before.\n")
    # A killed server leaves its file behind.
    (tmp_path / "server.json").write_text(json.dumps({"url": "http://127.0.0.1:9", "credentials": "a:b", "pid": 1}))
    listed = manage_keys(tmp_path, "list").stdout
    assert "before" in listed
    assert made.split(":")[1] not in listed
    assert manage_keys(tmp_path, "revoke", "nobody").exit_code == 1


def test_keys_are_stored_in_the_database(tmp_path: Path) -> None:
    created = manage_keys(tmp_path, "create", "studio", "--admin", "--max-requests", "3")
    key_id, _, secret = created.stdout.strip().partition(":")
    (row,) = [line for line in manage_keys(tmp_path, "list").stdout.splitlines() if line.startswith(key_id)]
    assert row.split()[:5] == [key_id, "studio", "admin", "requests", "3"]
    assert secret.encode() not in (tmp_path / "keyreel.db").read_bytes()


def test_key_can_be_revoked_once(tmp_path: Path) -> None:
    key_id = manage_keys(tmp_path, "create", "studio").stdout.partition(":")[0]
    assert manage_keys(tmp_path, "revoke", key_id).stdout == f"{key_id} is revoked.\n"
    again = manage_keys(tmp_path, "revoke", key_id)
    assert (again.exit_code, again.stderr) == (1, "There is no such key, or it was revoked before.\n")


def test_limits_are_replaced(tmp_path: Path) -> None:
    key_id = manage_keys(tmp_path, "create", "studio", "--max-requests", "3").stdout.partition(":")[0]
    options = ("--max-queued", "9", "--max-running", "2", "--max-per-minute", "60", "--max-bytes", "1000")
    replaced = manage_keys(tmp_path, "limit", key_id, *options)
    assert replaced.stdout == f"{key_id}: queued 9, running 2, per minute 60, bytes 1000\n"
    assert "requests 3" not in manage_keys(tmp_path, "list").stdout
    assert manage_keys(tmp_path, "limit", key_id).stdout == f"{key_id}: the limits of the server\n"
    unknown = manage_keys(tmp_path, "limit", "nobody")
    assert (unknown.exit_code, unknown.stderr) == (1, "There is no such key, or it was revoked.\n")


async def use(url: str, key_id: str) -> None:
    """Runs a request of the key, which is finished and has a video."""
    async with open_store(url) as store:
        await store.queue.submit(NewRequest(endpoint="a/b", key_id=key_id, input={}, seed=1))
        lease = await store.queue.claim("worker")
        assert lease
        video = await store.files.add(NewFile(key_id=key_id, object="o", name="o", content_type="video/mp4"))
        await store.queue.finish(lease, Success({}), Content(video.id, 2_500_000))


def test_use_is_shown_by_day(tmp_path: Path) -> None:
    key_id = manage_keys(tmp_path, "create", "studio").stdout.partition(":")[0]
    asyncio.run(use(f"sqlite:///{tmp_path / 'keyreel.db'}", key_id))
    today = str(datetime.now(UTC).date())
    shown = manage_keys(tmp_path, "usage").stdout.splitlines()
    assert shown[1].split() == [today, "studio", "1", "0", "0", "0.0", "2.5"]
    (row,) = csv.DictReader(manage_keys(tmp_path, "usage", key_id, "--csv", "--since", today).stdout.splitlines())
    assert (row["day"], row["key_id"], row["bytes"]) == (today, key_id, "2500000")
    assert len(manage_keys(tmp_path, "usage", key_id, "--until", "2020-01-01").stdout.splitlines()) == 1
    assert manage_keys(tmp_path, "usage", "--since", "yesterday").exit_code == 2


def test_limit_of_a_key_is_at_least_one_request(tmp_path: Path) -> None:
    assert manage_keys(tmp_path, "create", "studio", "--max-requests", "0").exit_code == 2
    assert "studio" not in manage_keys(tmp_path, "list").stdout


def test_a_key_is_made_with_scopes_and_expiry(tmp_path: Path) -> None:
    key_id = manage_keys(tmp_path, "create", "guest", "--scope", "read", "--expires", "2999-12-31").stdout.partition(
        ":"
    )[0]
    (row,) = [line for line in manage_keys(tmp_path, "list").stdout.splitlines() if line.startswith(key_id)]
    assert row.split()[1:3] == ["guest", "read"]
    assert row.split()[-1] == "2999-12-31"
    for wrong in (("--scope", "read", "--admin"), ("--scope", "fly"), ("--expires", "2000-01-01")):
        assert manage_keys(tmp_path, "create", "wrong", *wrong).exit_code == 2
    assert "wrong" not in manage_keys(tmp_path, "list").stdout


@pytest.mark.slow
@pytest.mark.parametrize("command", [["keys", "create", "studio"], ["audit"]])
def test_no_command_makes_a_database_where_nobody_said_it_is(command: list[str], tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KEYREEL_")}
    done = subprocess.run(
        [sys.executable, "-m", "keyreel", *command],
        env=environment | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "KEYREEL_DATABASE_URL or KEYREEL_DATA_DIR" in done.stderr
    assert not list(tmp_path.rglob("*.db"))
