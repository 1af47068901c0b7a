"""Licences that may and may not be in the default install."""

from importlib.metadata import PathDistribution, distribution
from pathlib import Path

import pytest
from supply.licences import ACCEPTED, Licence, closure, is_gpl, licences, read


def package(folder: Path, metadata: str, **files: str) -> Licence:
    """Reads a made-up package that lies in `folder`."""
    info = folder / "thing-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: Thing\nVersion: 1.0\n{metadata}\n")
    names = [name.replace("_so", ".so.1").replace("_", "-") for name in files]
    for name, text in zip(names, files.values(), strict=True):
        (info / name).write_text(text)
    (info / "RECORD").write_text("\n".join(f"{info.name}/{name},," for name in [*names, "METADATA"]))
    return read(PathDistribution(info))


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("GPL-3.0-or-later", True),
        ("AGPL-3.0-only", True),
        ("GNU Affero General Public License v3", True),
        ("MIT AND GPL-2.0-only", True),
        ("MIT OR GPL-2.0-only", False),
        ("LGPL-3.0-only", False),
        ("GNU Lesser General Public License v2 (LGPLv2)", False),
        ("GNU Library or Lesser General Public License (LGPL)", False),
        ("GNU General Public License v2 (GPLv2)", True),
        ("Mozilla Public License 2.0 (MPL 2.0)", False),
        ("", False),
    ],
)
def test_the_gpl_is_told_from_other_licences(named: str, expected: bool) -> None:
    assert is_gpl(named) is expected


def test_a_gpl_package_is_a_problem(tmp_path: Path) -> None:
    assert package(tmp_path, "License-Expression: GPL-3.0-only").problem == "GPL-3.0-only"


def test_a_package_without_a_licence_is_a_problem(tmp_path: Path) -> None:
    assert package(tmp_path, "Summary: a thing").problem == "names no licence"


def test_the_text_counts_when_the_metadata_says_otherwise(tmp_path: Path) -> None:
    text = "            GNU AFFERO GENERAL PUBLIC LICENSE\n               Version 3, 19 November 2007\n"
    found = package(tmp_path, "License: MIT", LICENSE=text)
    assert found.problem == "GNU AFFERO GENERAL PUBLIC LICENSE in LICENSE"


def test_a_mention_of_the_gpl_is_no_problem(tmp_path: Path) -> None:
    found = package(tmp_path, "License: PSF-2.0", LICENSE="compatible with the GNU General Public License")
    assert found.problem is None


def test_a_bundled_library_counts(tmp_path: Path) -> None:
    assert package(tmp_path, "License: MIT", libx264_abc_so="").problem == "bundles libx264"


def test_nudenet_is_found_out() -> None:
    """Its metadata says MIT, its licence file is the AGPL. That is why it is not in the default install."""
    assert read(distribution("nudenet")).problem
    assert "nudenet" not in closure("keyreel")


def test_the_default_install_has_no_gpl_but_what_was_accepted() -> None:
    found = licences()
    assert len(found) > 50
    assert {each.package: each.problem for each in found if each.problem} == {}
    assert {package for package, _ in ACCEPTED} == {each.package for each in found if each.accepted}
