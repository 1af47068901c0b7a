"""The programs in docs/clients.md run as they are printed there, with the address and the key of a test server."""

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.js import JS, environment, install
from tests.server.live import VIDEO, LiveServer

TEXT = (Path(__file__).parents[2] / "docs" / "clients.md").read_text()


def programs(language: str) -> list[str]:
    """Returns the page's code blocks in a language."""
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def adapted(program: str, server: LiveServer) -> str:
    return program.replace("http://127.0.0.1:8000", server.url).replace("id:secret", server.credentials)


@pytest.mark.slow
@pytest.mark.parametrize("program", programs("js"), ids=re.findall("### `(.*)`", TEXT))
def test_javascript_programs(server: LiveServer, tmp_path: Path, program: str) -> None:
    install()
    (tmp_path / "node_modules").symlink_to(JS / "node_modules")
    (tmp_path / "app.mjs").write_text(adapted(program, server))
    done = subprocess.run(["node", "app.mjs"], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [server.worker.leases[-1].id, VIDEO["url"]]


@pytest.mark.slow
def test_the_python_program(server: LiveServer) -> None:
    (program,) = programs("python")
    command = [sys.executable, "-c", adapted(program, server)]
    done = subprocess.run(command, env=environment(NO_PROXY="127.0.0.1"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == VIDEO["url"]
    (image,) = server.worker.leases[-1].input["images"]
    assert httpx.get(image["image_url"], trust_env=False).content == b"..."


def test_the_curl_command(server: LiveServer) -> None:
    program = next(program for program in programs("sh") if program.startswith("curl"))
    done = subprocess.run(["sh", "-c", adapted(program, server)], capture_output=True, text=True)
    assert str(VIDEO["url"]) in done.stdout
