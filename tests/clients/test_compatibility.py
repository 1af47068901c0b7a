"""The table of clients in docs/compatibility.md."""

import re

from tests.clients.compatibility import MARKED, PAGE, table
from tests.clients.run import Cell, Outcome
from tests.clients.table import CAPABILITIES, CLIENTS


def test_the_page_has_a_row_for_each_client() -> None:
    marked = MARKED.search(PAGE.read_text(encoding="utf-8"))
    assert marked
    rows = [line.split(" | ")[0].removeprefix("| ") for line in marked[0].splitlines() if line.startswith("| ")]
    assert rows == ["client", "---", *(client.name for client in CLIENTS)], "run `make clients`"


def test_reasons_are_listed_once() -> None:
    cells = dict.fromkeys(CAPABILITIES, Cell(True))
    bad = {**cells, "submit": Cell(False, "It failed."), "cancel": Cell(None), "upload": Cell(False, "It failed.")}
    lines = table({CLIENTS[0]: Outcome(cells), CLIENTS[1]: Outcome(bad)}).splitlines()
    assert lines[2] == f"| {CLIENTS[0].name} |" + " yes |" * len(CAPABILITIES)
    assert re.sub(" yes |", "", lines[3]) == f"| {CLIENTS[1].name} | no (1) |||| - | no (1) |||"
    assert lines[4:] == ["", "1. It failed."]
