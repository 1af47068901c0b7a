"""`keyreel keys`, with and without a running server."""

import json
import re
from pathlib import Path

import pytest

from tests.cli.servers import manage_keys, serving, submit


@pytest.mark.slow
def test_keys_are_managed_with_and_without_a_server(tmp_path: Path) -> None:
    made = manage_keys(tmp_path, "create", "before").stdout.strip()
    assert re.fullmatch(r"[\w-]+:[0-9a-f]{64}", made)
    with serving(tmp_path) as (url, shown):
        assert shown == ""  # there is a key already
        assert submit(url, made).status_code == 200
        later = manage_keys(tmp_path, "create", "later").stdout.strip()
        assert submit(url, later).status_code == 200
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
    assert row.split()[:4] == [key_id, "studio", "yes", "3"]
    assert secret.encode() not in (tmp_path / "keyreel.db").read_bytes()


def test_key_can_be_revoked_once(tmp_path: Path) -> None:
    key_id = manage_keys(tmp_path, "create", "studio").stdout.partition(":")[0]
    assert manage_keys(tmp_path, "revoke", key_id).stdout == f"{key_id} is revoked.\n"
    again = manage_keys(tmp_path, "revoke", key_id)
    assert (again.exit_code, again.stderr) == (1, "There is no such key, or it was revoked before.\n")


def test_limit_of_a_key_is_at_least_one_request(tmp_path: Path) -> None:
    assert manage_keys(tmp_path, "create", "studio", "--max-requests", "0").exit_code == 2
    assert "studio" not in manage_keys(tmp_path, "list").stdout
