"""`keyreel audit`, with and without a running server."""

import csv
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from keyreel.cli import app
from tests.cli.servers import manage_keys, serving


def show(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["audit", *arguments, "--data-dir", str(folder)], env={"COLUMNS": "200"})


def rows(result: Result) -> list[dict[str, str]]:
    return list(csv.DictReader(result.stdout.splitlines()))


def test_the_log_is_read_from_the_database(tmp_path: Path) -> None:
    key_id = manage_keys(tmp_path, "create", "studio").stdout.partition(":")[0]
    manage_keys(tmp_path, "revoke", key_id)
    assert [(row["key_id"], row["action"], row["target"]) for row in rows(show(tmp_path, "--csv"))] == [
        ("local", "key_revoked", key_id),
        ("local", "key_created", key_id),
    ]
    shown = show(tmp_path).stdout.splitlines()
    assert shown[0].split() == ["Time", "Who", "Address", "What", "Target", "Detail"]
    assert "key_revoked" in shown[1]
    assert len(show(tmp_path, "--until", "2020-01-01").stdout.splitlines()) == 1
    assert show(tmp_path, "--since", "yesterday").exit_code == 2


@pytest.mark.slow
def test_the_log_is_read_from_the_running_server_in_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["keyreel.cli.audit"], "MAX_PAGE", 1)
    with serving(tmp_path):
        key_id = manage_keys(tmp_path, "create", "studio").stdout.partition(":")[0]
        first, second = rows(show(tmp_path, "--csv"))
    assert (first["key_id"], first["address"], first["target"]) == ("local", "127.0.0.1", key_id)
    assert (second["key_id"], second["action"]) == ("server", "key_created")
