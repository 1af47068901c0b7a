"""The units for systemd. None is started."""

import re
import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path

import pytest

from keyreel.actors import KILL_MARGIN
from keyreel.settings import Settings
from tests.deploy.files import DEPLOY, EVERYWHERE, command_values

UNITS = sorted((DEPLOY / "systemd").iterdir())
PROGRAM = "/opt/keyreel/bin/keyreel"

each_unit = pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)


@pytest.fixture
def installed(tmp_path: Path) -> list[Path]:
    """The units, the worker's as instance 0, with a program that this machine has."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd is not installed")
    copies = []
    for path in UNITS:
        copy = tmp_path / path.name.replace("@", "@0")
        copy.write_text(path.read_text().replace(PROGRAM, "/bin/true"))
        copies.append(copy)
    return copies


def lines(path: Path, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", path.read_text(), re.MULTILINE)


def command(path: Path) -> list[str]:
    """Returns the arguments of `keyreel`, for instance 0."""
    (line,) = lines(path, "ExecStart")
    program, *arguments = line.replace("%i", "0").replace(" $WORKER_ARGUMENTS", "").split()
    assert program == PROGRAM
    return arguments


def test_systemd_accepts_the_units(installed: list[Path]) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, installed)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_units_are_hardened(installed: list[Path]) -> None:
    """systemd rates exposure from 0 to 10. A unit without options has 9.6."""
    for path in installed:
        command = ["systemd-analyze", "security", "--offline=yes", "--threshold=25", str(path)]
        subprocess.run(command, check=True, capture_output=True)


@each_unit
def test_commands_exist(path: Path) -> None:
    values = command_values(command(path))
    assert values["host"] == EVERYWHERE
    assert values["port"] == (8010 if "@" in path.name else 8000)
    assert path.read_text().count("%i") or not values["worker"]


@each_unit
def test_processes_have_time_to_drain(path: Path) -> None:
    grace = re.findall(r"^Environment=KEYREEL_GRACE=(\d+)$", path.read_text(), re.MULTILINE)
    expected = float(grace[0]) + KILL_MARGIN if grace else Settings().grace
    assert float(lines(path, "TimeoutStopSec")[0]) >= expected
    assert lines(path, "KillMode") == ["mixed"], "the processes of a worker must outlive the signal"


@each_unit
def test_data_folder_is_writable(path: Path) -> None:
    (folder,) = re.findall(r"^Environment=KEYREEL_DATA_DIR=/var/lib/(.*)$", path.read_text(), re.MULTILINE)
    assert lines(path, "StateDirectory") == [folder]
    assert lines(path, "ProtectSystem") == ["strict"]


@each_unit
def test_unit_has_its_sections(path: Path) -> None:
    parser = RawConfigParser(strict=False)
    parser.read(path)
    assert parser.sections() == ["Unit", "Service", "Install"]
