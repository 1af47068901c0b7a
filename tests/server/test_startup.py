"""Settings that the server reads at its start: the operator's key and the allowed hosts."""

from pathlib import Path

import pytest

from tests.cli.servers import serving, start_error, submit


@pytest.mark.slow
def test_the_operators_key_works_and_no_other_key_is_created(tmp_path: Path) -> None:
    with serving(tmp_path, KEYREEL_ADMIN_KEY="boss:a secret") as (url, shown):
        assert shown == ""
        assert submit(url, "boss:a secret").status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("KEYREEL_ADMIN_KEY", "boss", "KEYREEL_ADMIN_KEY must have the form id:secret."),
        ("KEYREEL_ALLOW_HOSTS", "::1, a b", "KEYREEL_ALLOW_HOSTS: 'a b' is neither a network nor a host name."),
    ],
)
def test_an_invalid_setting_is_reported_at_the_start(tmp_path: Path, name: str, value: str, message: str) -> None:
    assert start_error("--port", "0", "--data-dir", str(tmp_path), **{name: value}) == message
