"""Tables as CSV."""

import csv
import io
from collections.abc import Iterable

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a text begins that a spreadsheet may run."""


def as_csv(rows: Iterable[Iterable[object]]) -> str:
    """Returns the rows as CSV. A text that a spreadsheet would run as a formula begins with an apostrophe."""
    table = io.StringIO()
    csv.writer(table).writerows(map(_inert, row) for row in rows)
    return table.getvalue()


def _inert(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
