"""Checks advisories and licences: `make audit`, or `python -m supply.audit`.

Exits with 1 after a finding, and with 2 when a service could not be asked: no answer is not a clean one.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial

from rich.console import Console
from rich.table import Table

from supply.advisories import ROOT, Advisory, UnreachableError, npm_advisories, python_advisories
from supply.licences import Licence, licences

FINDINGS, UNREACHABLE = 1, 2
PYTHON = ROOT / "constraints.txt"
NPM_FOLDERS = (ROOT / "web", *(ROOT / "clients" / name for name in ("generated", "js", "others", "wrap")))


def main(console: Console) -> int:
    """Prints a table for each check and returns the exit status."""
    statuses = [report(console, PYTHON.name, partial(python_advisories, PYTHON))]
    for folder in NPM_FOLDERS:
        statuses += [report(console, str(folder.relative_to(ROOT)), partial(npm_advisories, folder))]
    return max(*statuses, report_licences(console, licences()))


def report(console: Console, name: str, check: Callable[[], Sequence[Advisory]]) -> int:
    """Runs one check of advisories. Returns its exit status."""
    try:
        found = check()
    except UnreachableError as error:
        console.print(f"[bold red]Not checked:[/] advisories for {name}. {error}", highlight=False)
        return UNREACHABLE
    table = Table("package", "version", "advisory", "fixed in", title=f"Advisories for {name}: {len(found)}")
    for each in found:
        table.add_row(each.package, each.version, each.id, each.fixed)
    console.print(table)
    return FINDINGS if found else 0


def report_licences(console: Console, found: Sequence[Licence]) -> int:
    """Prints the licences of the default install. Returns the exit status."""
    table = Table("package", "version", "licence", "note", title=f"Licences of the default install: {len(found)}")
    for each in found:
        note = f"[bold red]{each.problem}[/]" if each.problem else each.accepted
        table.add_row(each.package, each.version, each.named, note)
    console.print(table)
    return FINDINGS if any(each.problem for each in found) else 0


if __name__ == "__main__":
    sys.exit(main(Console()))
