"""docs/architecture.md names files that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "architecture.md").read_text()
PATHS = sorted(set(re.findall(r"`([\w.-]+(?:/[\w.-]+)*(?:/|\.py|\.md|\.ts))`", TEXT)))


def test_page_names_files() -> None:
    assert len(PATHS) > 50


@pytest.mark.parametrize("path", PATHS)
def test_every_file_named_on_the_page_exists(path: str) -> None:
    assert (ROOT / "src" / "keyreel" / path).exists() or (ROOT / path).exists()
