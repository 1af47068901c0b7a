"""Exit statuses and messages of `keyreel wrap`. tests/wrap has programs that really call fal."""

import socket
import sys
from collections.abc import Iterator

import pytest
import typer
from aiohttp.test_utils import unused_port
from typer.testing import CliRunner, Result

from keyreel.cli.wrap import wrap

app = typer.Typer()
app.command()(wrap)


@pytest.fixture
def server() -> Iterator[str]:
    """A port that accepts connections, which is all that the command itself needs."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def run(server: str, *command: str) -> Result:
    return CliRunner().invoke(app, ["--server", server, "--", *command])


@pytest.mark.parametrize(("program", "status"), [("", 0), ("raise SystemExit(7)", 7)])
def test_exit_status_is_that_of_the_program(server: str, program: str, status: int) -> None:
    assert run(server, sys.executable, "-c", program).exit_code == status


def test_program_that_is_killed_has_the_exit_status_of_a_shell(server: str) -> None:
    killed = run(server, sys.executable, "-c", "import os; os.kill(os.getpid(), 15)")
    assert killed.exit_code == 128 + 15


def test_missing_program_is_an_error(server: str) -> None:
    missing = run(server, "no-such-program")
    assert (missing.exit_code, missing.stderr) == (127, "keyreel: cannot run 'no-such-program'\n")


def test_invalid_address_is_an_error() -> None:
    invalid = run("ftp://127.0.0.1", sys.executable)
    assert invalid.exit_code == 2
    assert invalid.stderr.startswith("keyreel: 'ftp://127.0.0.1' is not the address of a server.")


def test_unreachable_server_is_an_error() -> None:
    url = f"http://127.0.0.1:{unused_port()}"
    unreachable = run(url, sys.executable)
    assert unreachable.exit_code == 2
    assert unreachable.stderr.startswith(f"keyreel: No server answers at {url} (")
