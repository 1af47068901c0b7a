"""The locks: what an install brings, with hashes."""

import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from supply.licences import closure
from supply.lock import EXTRAS, LOCKS, ROOT

ENTRY = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>[^ ;\\]+)(?P<rest>(?:.*\\\n)*.*)", re.MULTILINE)
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
ROOTS = {"gateway": "keyreel", "engine": "keyreel[engine]"}

each_lock = pytest.mark.parametrize("name", EXTRAS)


def pins() -> dict[str, str]:
    lines = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    return {canonicalize_name(line.name): str(line.specifier).removeprefix("==") for line in lines}


def entries(name: str) -> dict[str, re.Match[str]]:
    return {canonicalize_name(found["name"]): found for found in ENTRY.finditer((LOCKS / f"{name}.txt").read_text())}


@each_lock
def test_versions_are_those_of_the_constraints(name: str) -> None:
    known = pins()
    locked = {package: entry["version"] for package, entry in entries(name).items()}
    assert len(locked) > 50
    assert {package: version for package, version in locked.items() if known.get(package, version) != version} == {}


@each_lock
def test_every_package_has_hashes(name: str) -> None:
    assert [package for package, entry in entries(name).items() if not HASH.search(entry["rest"])] == []


@pytest.mark.slow
@each_lock
def test_the_lock_has_all_that_an_install_needs(name: str) -> None:
    """`make lock` brings a lock up to date. Only torch, and what torch alone brings, is left out."""
    needed = {package for package in closure(ROOTS[name]) if package in pins()}
    torch = set(closure("torch")) | {"torch"} if name == "engine" else set()
    assert needed - set(entries(name)) <= torch
    assert "torch" not in entries(name)
