"""Every setting that a file in deploy/ names exists."""

from pathlib import Path

import pytest

from tests.deploy.files import DEPLOY, ROOT, SETTING, SETTINGS

FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_named_settings_exist(path: Path) -> None:
    assert set(SETTING.findall(path.read_text())) <= SETTINGS


def test_settings_are_found() -> None:
    named = {name for path in FILES for name in SETTING.findall(path.read_text())}
    assert {"KEYREEL_DATABASE_URL", "KEYREEL_SECRET", "KEYREEL_PUBLIC_URL", "KEYREEL_OBJECT_STORE"} <= named


@pytest.mark.parametrize("page", ["fleet.md", "runbook.md"])
def test_settings_named_in_the_docs_exist(page: str) -> None:
    assert set(SETTING.findall((ROOT / "docs" / page).read_text())) <= SETTINGS
