"""Collects figures: prints each when it is known, keeps all in a JSON file, and ends with tables."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.tables import print_table

Value = float | str | bool


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured or checked thing. ideal: the milliseconds of the roofline, for a value in milliseconds.

    A value that is a truth value is a check: false means that Keyreel is broken.
    """

    stage: str
    name: str
    value: Value
    unit: str = ""
    ideal: float | None = None

    def __str__(self) -> str:
        return f"{self.stage}: {self.name}: {_shown(self.value)}{' ' if self.unit else ''}{self.unit}{self._share()}"

    def _share(self) -> str:
        return f" ({self.share:.0%} of the roofline's speed)" if self.share is not None else ""

    @property
    def is_check(self) -> bool:
        return isinstance(self.value, bool)

    @property
    def share(self) -> float | None:
        return self.ideal / self.value if self.ideal is not None and isinstance(self.value, float) else None


class Report:
    """The figures of a run. The file is written anew after each, so a run that is stopped leaves what it knew."""

    def __init__(self, out: Path | None) -> None:
        self.figures: list[Figure] = []
        self.failures: dict[str, str] = {}
        self._seconds: dict[str, float] = {}
        self._out = out

    def add(self, figure: Figure) -> None:
        self.figures.append(figure)
        print(figure, flush=True)
        self._write()

    def fail(self, stage: str, reason: str) -> None:
        self.failures[stage] = reason
        print(f"{stage}: FAILED: {reason}", flush=True)
        self._write()

    def end(self, stage: str, seconds: float) -> None:
        self._seconds[stage] = seconds
        self._write()

    @property
    def broken(self) -> list[str]:
        """The stages that failed and the checks that do not hold."""
        return [*self.failures, *(f"{item.stage}: {item.name}" for item in self.figures if item.value is False)]

    def print_table(self) -> None:
        rows = [(item.name, *_cells(item)) for item in self.figures if item.ideal is not None]
        if rows:
            print_table("Guided steps", ("", "ms", "roofline, ms", "share"), *rows)
        checks = [(f"{item.stage}: {item.name}", _shown(item.value)) for item in self.figures if item.is_check]
        if checks:
            print_table("Checks", ("", ""), *checks)
        for stage, reason in self.failures.items():
            print(f"{stage}: FAILED: {reason}")

    def _write(self) -> None:
        if self._out:
            self._out.write_text(json.dumps(self._content(), indent=1))

    def _content(self) -> Mapping[str, object]:
        figures = [asdict(item) for item in self.figures]
        return {"figures": figures, "failures": self.failures, "seconds": self._seconds}


def _cells(figure: Figure) -> tuple[str, str, str]:
    share = f"{figure.share:.0%}" if figure.share is not None else ""
    return _shown(figure.value), f"{figure.ideal:,.1f}", share


def _shown(value: Value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
