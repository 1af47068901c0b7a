"""The newest clients through `keyreel wrap`. `make clients` runs them all."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.clients import install
from tests.clients.run import Cell, Outcome, outcome_of, problems
from tests.clients.table import CAPABILITIES, CLIENTS, Client

WORKS: Mapping[str, Cell] = dict.fromkeys(CAPABILITIES, Cell(True))


@pytest.mark.slow
@pytest.mark.parametrize("client", [client for client in CLIENTS if client.quick], ids=lambda client: client.name)
async def test_a_client_works_and_calls_this_machine_only(client: Client, tmp_path: Path) -> None:
    if client.ecosystem == "node" and not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node and npm are not installed")
    outcome = await outcome_of(client, tmp_path)
    assert problems(client, outcome) == [], outcome.errors


@pytest.mark.slow
async def test_a_program_that_does_less_or_calls_others_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says that its file has arrived, and calls another host. Then it ends too soon."""
    monkeypatch.setattr(install, "PROGRAMS", tmp_path)
    said = '{"capability": "file input", "works": true, "reason": ""}'
    program = f"import socket, sys\nprint('''{said}''')\ntry: socket.create_connection(('127.0.0.2', 9))\n"
    (tmp_path / "program.py").write_text(program + "except OSError: sys.exit(3)\n")
    client = Client("a client", "python", (), "program.py")
    first, *others = problems(client, await outcome_of(client, tmp_path))
    assert first == "a client connected to 127.0.0.2"
    reasons = dict.fromkeys(CAPABILITIES, "its program ended with status 3") | {
        "file input": "the picture did not arrive"
    }
    assert others == [f"a client, {capability}: {reason}" for capability, reason in reasons.items()]


@pytest.mark.slow
async def test_a_client_that_cannot_be_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(install, "_is_here", lambda _: False)
    client = Client("a client", "python", ("no name",), "program.py")
    found = problems(client, await outcome_of(client, tmp_path))
    assert len(found) == len(CAPABILITIES)
    assert found[0].startswith("a client, submit: it cannot be installed: error: ")


def test_a_limit_that_is_gone_is_found() -> None:
    client = replace(CLIENTS[0], name="a client", limits={"cancel": "It cannot."})
    assert problems(client, Outcome(WORKS)) == ["a client, cancel: it works, but the table says: It cannot."]
    assert problems(client, Outcome({**WORKS, "cancel": Cell(False, "It failed.")})) == []
