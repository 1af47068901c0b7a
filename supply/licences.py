"""Licences of the packages that `pip install keyreel` brings.

Metadata alone is not enough: some packages name one licence and contain another's text, and wheels bundle libraries of
others. So the texts and the bundled libraries are read as well.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ACCEPTED = {
    ("av", "bundles libx264"): "encodes the videos: docs/decisions.md",
    ("av", "bundles libx265"): "not used: docs/decisions.md",
    ("numpy", "GNU GENERAL PUBLIC LICENSE in LICENSE.txt"): "libgfortran, with the GCC Runtime Library Exception",
}
"""What is under a GPL in a package and has been looked at by a person, and why it may stay."""
_GPL = re.compile(r"\bA?GPL|(?<!lesser )(?<!library )general public licen[cs]e|affero", re.IGNORECASE)
_HEADING = re.compile(r"^\s*(GNU (?:AFFERO )?GENERAL PUBLIC LICENSE)\s*\n\s*Version", re.MULTILINE)
_LICENCE_FILE = re.compile(r"(licen[cs]e|copying)", re.IGNORECASE)
_GPL_LIBRARY = re.compile(r"lib(x264|x265|xvid\w*|readline|gsl)\b")


@dataclass(frozen=True, slots=True)
class Licence:
    """What one package says about its licence, and what `found` in it is under the GPL or AGPL."""

    package: str
    version: str
    named: str
    found: tuple[str, ...] = ()

    @property
    def problem(self) -> str | None:
        """Why the package may not be in the default install, or None."""
        if not self.named:
            return "names no licence"
        return ", ".join(each for each in self.found if (self.package, each) not in ACCEPTED) or None

    @property
    def accepted(self) -> str:
        """What was found and may stay, and why."""
        reasons = {each: ACCEPTED.get((self.package, each)) for each in self.found}
        return "; ".join(f"{each} ({reason})" for each, reason in reasons.items() if reason)


def licences(root: str = "keyreel") -> list[Licence]:
    """Returns the licence of each package that an install of `root` without extras brings, by name."""
    return [read(found) for _, found in sorted(closure(root).items())]


def closure(root: str) -> dict[str, Distribution]:
    """Returns the installed packages that `root` needs on this machine, without itself."""
    found: dict[str, Distribution] = {}
    waiting = list(_requirements(Requirement(root)))
    seen = set()
    while waiting:
        requirement = waiting.pop()
        if str(requirement) not in seen:
            seen.add(str(requirement))
            found[canonicalize_name(requirement.name)] = distribution(requirement.name)
            waiting.extend(_requirements(requirement))
    return found


def _requirements(parent: Requirement) -> Iterator[Requirement]:
    for text in distribution(parent.name).requires or ():
        needed = Requirement(text)
        if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *parent.extras)):
            yield needed


def read(package: Distribution) -> Licence:
    """Reads a package's metadata, the texts of its licences and the names of the libraries in it."""
    named = _named(package)
    found = [named] if is_gpl(named) else []
    return Licence(
        canonicalize_name(package.name), package.version, named, (*found, *_texts(package), *_bundled(package))
    )


def is_gpl(named: str) -> bool:
    """Whether each choice that `named` (an SPDX expression, or plain words) leaves is the GPL or the AGPL."""
    return all(_GPL.search(choice) for choice in re.split(r"\bOR\b", named))


def _named(package: Distribution) -> str:
    metadata = package.metadata.json
    classified = [line.rpartition(" :: ")[2] for line in metadata.get("classifier", ()) if "License ::" in line]
    text = str(metadata.get("license", "")).strip().partition("\n")[0]
    return str(metadata.get("license_expression") or " AND ".join(classified) or text)


def _texts(package: Distribution) -> Iterator[str]:
    for file in package.files or ():
        if _LICENCE_FILE.match(file.name) and file.suffix in ("", ".txt", ".md", ".rst"):
            headings = {match[1] for match in _HEADING.finditer(file.read_text())}
            yield from (f"{heading} in {file.name}" for heading in sorted(headings))


def _bundled(package: Distribution) -> Iterator[str]:
    for file in package.files or ():
        if _GPL_LIBRARY.match(file.name):
            yield f"bundles {file.name.partition('-')[0]}"
