"""`make clients`: runs all clients, and writes what each can do into docs/compatibility.md."""

import asyncio
import logging
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog

from tests.clients.run import Cell, Outcome, outcome_of, problems
from tests.clients.table import CAPABILITIES, CLIENTS, Client

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
MARKED = re.compile(r"(<!-- `make clients` writes this table. -->\n).*?(<!-- End of the table. -->)", re.DOTALL)


def main() -> None:
    """Exits with 1 when something is not as the table of clients says. The page is written all the same."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    outcomes = asyncio.run(_run_all())
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(MARKED.sub(lambda match: match[1] + table(outcomes) + match[2], page), encoding="utf-8")
    if found := [problem for client, outcome in outcomes.items() for problem in problems(client, outcome)]:
        sys.exit("\n".join(found))


async def _run_all() -> dict[Client, Outcome]:
    with TemporaryDirectory() as name:
        return {client: await _run_one(client, Path(name) / str(number)) for number, client in enumerate(CLIENTS)}


async def _run_one(client: Client, folder: Path) -> Outcome:
    folder.mkdir()
    outcome = await outcome_of(client, folder)
    works = [capability for capability, cell in outcome.cells.items() if cell.works]
    print(f"{client.name}: {', '.join(works) or 'nothing'}", flush=True)
    if problems(client, outcome):
        print(outcome.errors, file=sys.stderr)
    return outcome


def table(outcomes: Mapping[Client, Outcome]) -> str:
    """Returns the table as Markdown. Below it are the reasons of what does not work."""
    reasons: list[str] = []
    lines = [f"| client | {' | '.join(CAPABILITIES)} |", "| --- |" + " --- |" * len(CAPABILITIES)]
    for client, outcome in outcomes.items():
        cells = (_text(client, capability, outcome.cells[capability], reasons) for capability in CAPABILITIES)
        lines.append(f"| {client.name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"{number}. {reason}" for number, reason in enumerate(reasons, 1)), ""])


def _text(client: Client, capability: str, cell: Cell, reasons: list[str]) -> str:
    if cell.works is None:
        return "-"
    if cell.works:
        return "yes"
    reason = client.limits.get(capability, cell.reason)
    if reason not in reasons:
        reasons.append(reason)
    return f"no ({reasons.index(reason) + 1})"


if __name__ == "__main__":
    main()
