"""Known vulnerabilities of the pinned packages, by pip-audit and npm."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
OSV = "https://api.osv.dev/v1/query"
NPM = "npm's registry"
_TIMEOUT = 600.0
"""Seconds. pip-audit asks once for each package."""


class UnreachableError(Exception):
    """A service that knows advisories gave no answer, so nothing is known."""


@dataclass(frozen=True, slots=True)
class Advisory:
    """A known vulnerability of a package. `fixed` names the versions without it."""

    package: str
    version: str
    id: str
    fixed: str


def python_advisories(requirements: Path, service: str = OSV) -> list[Advisory]:
    """Looks up each pinned package of `requirements`. Raises UnreachableError."""
    # Without --no-deps, pip-audit installs the packages. PyPI's own service answers 404 for an unknown package, which
    # pip-audit counts as one without findings: OSV has no such case.
    options = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--desc", "off", "--format", "json"]
    where = ["--vulnerability-service", "osv", "--osv-url", service, "--requirement", str(requirements)]
    done = _run([sys.executable, "-m", "pip_audit", *options, *where])
    answer = _json(done, service)
    skipped = [package["name"] for package in answer["dependencies"] if "skip_reason" in package]
    if skipped:
        raise UnreachableError(f"{service} was not asked about {', '.join(skipped)}.")
    return [
        Advisory(package["name"], package["version"], found["id"], ", ".join(found["fix_versions"]) or "-")
        for package in answer["dependencies"]
        for found in package["vulns"]
    ]


def npm_advisories(folder: Path) -> list[Advisory]:
    """Looks up each package of the lock file in `folder`. Raises UnreachableError."""
    npm = shutil.which("npm")
    if not npm:
        raise UnreachableError("npm is not installed.")
    answer = _json(_run([npm, "audit", "--json", "--package-lock-only"], folder), NPM)
    if "vulnerabilities" not in answer:
        raise UnreachableError(f"{NPM} did not answer: {answer.get('message') or answer}")
    return list(_npm_findings(answer["vulnerabilities"]))


def _npm_findings(vulnerable: dict[str, Any]) -> Iterator[Advisory]:
    for name, package in vulnerable.items():
        for found in package["via"]:
            # A string names the dependency that has the finding; it has an entry of its own.
            if isinstance(found, dict):
                fixed = "newer" if package["fixAvailable"] else "-"
                yield Advisory(name, package["range"], found["url"].rpartition("/")[2], fixed)


def _run(command: Sequence[str], folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603
        command, cwd=folder, env=os.environ, capture_output=True, text=True, check=False, timeout=_TIMEOUT
    )


def _json(done: subprocess.CompletedProcess[str], service: str) -> dict[str, Any]:
    """Returns the report. The exit status cannot tell a finding from a failure: both are 1."""
    try:
        report = json.loads(done.stdout)
    except json.JSONDecodeError:
        # The traceback's last error may have no words.
        reasons = [line for line in done.stderr.splitlines() if "Error: " in line] or [
            done.stderr.strip() or "no output"
        ]
        raise UnreachableError(f"{service} did not answer: {reasons[-1]}") from None
    return dict(report)
