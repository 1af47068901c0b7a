import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keyreel.errors import KeyreelError
from keyreel.files.secrets import derive_secret, load_secret, make_private

LINKS = "0314a075645073cfe425503359c6272ca615767bdd7425a15d8144f955c55467"
"""HKDF-SHA256 without a salt, info `keyreel links`."""


def test_derived_secrets_are_the_same_in_every_process() -> None:
    assert derive_secret("a shared secret", "links").hex() == LINKS


def test_derived_secrets_differ_by_purpose_and_secret() -> None:
    secrets = {
        derive_secret(secret, purpose)
        for secret in ("one secret", "another secret")
        for purpose in ("links", "webhooks", "webhook_urls", "fingerprint")
    }
    assert len(secrets) == 8


def test_a_secret_is_created_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "secret"
    secret = load_secret(path)
    assert len(secret) == 32
    assert load_secret(path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]
    assert load_secret(tmp_path / "other") != secret


def test_simultaneous_loads_get_the_same_secret(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        secrets = list(threads.map(load_secret, [tmp_path / "secret"] * 64))
    assert len(set(secrets)) == 1


def test_a_damaged_secret_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"short")
    with pytest.raises(KeyreelError, match="damaged"):
        load_secret(tmp_path / "secret")


def test_other_users_cannot_enter_a_private_folder(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    for private in (folder, tmp_path / "new"):
        make_private(private)
        assert private.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_used_is_named_with_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(KeyreelError, match=rf"^Cannot use the data folder {folder}: .*KEYREEL_DATA_DIR\.$"):
            make_private(folder)


def test_a_secret_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(KeyreelError, match=r"^Cannot use the secret .*/file/links\.key: "):
        load_secret(tmp_path / "file" / "links.key")
