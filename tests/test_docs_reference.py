"""docs/reference/ is what `make docs` writes."""

import re

import pytest
from docs.reference import FOLDER, pages

from keyreel.settings import Settings

INDEX = "README.md"


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    return pages()


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.md") if path.name != INDEX))
def test_page_is_up_to_date(name: str, written: dict[str, str]) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == written[name], (
        f"docs/reference/{name} is old: run `make docs`"
    )


def test_all_pages_are_on_disk_and_in_the_index(written: dict[str, str]) -> None:
    assert {path.name for path in FOLDER.iterdir()} == {*written, INDEX}, "run `make docs`"
    assert set(re.findall(r"\]\((\w+\.md)\)", (FOLDER / INDEX).read_text(encoding="utf-8"))) == written.keys()


@pytest.mark.parametrize("name", Settings.model_fields)
def test_setting_has_a_description(name: str) -> None:
    assert re.fullmatch(r"\S.{10,}\.", Settings.model_fields[name].description or "")
