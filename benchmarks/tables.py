"""Prints tables."""

from collections.abc import Sequence


def print_table(title: str, *rows: Sequence[str]) -> None:
    """Prints rows as columns below a title. The first row is the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(f"\n{title}")
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), flush=True)
