"""No way to make a call goes past `keyreel wrap`, whichever library a program uses."""

import json
import sys
from pathlib import Path

import pytest

from keyreel.fal.hosts import NO_WEBSOCKETS
from tests.clients.install import command_of
from tests.clients.table import Client
from tests.js import install_programs
from tests.wrap.programs import echo_server, recorder, run_wrapped

PYTHON_WAYS = 12
NODE_WAYS = 11

pytestmark = pytest.mark.slow


async def all_ways(folder: Path, *command: str) -> dict[str, dict[str, str]]:
    """Runs a program that makes the same call in each way, and checks that it connected to this machine only."""
    async with echo_server() as server, recorder(folder) as recorded:
        code, out, err = await run_wrapped(server, *command, **recorded.environment)
    assert code == 0, err
    assert recorded.proxied == []
    assert recorded.addresses - {"pipe"} == {"127.0.0.1"}
    answers: dict[str, dict[str, str]] = json.loads(out)
    return answers


async def test_every_way_of_python_reaches_the_server(tmp_path: Path) -> None:
    answers = await all_ways(tmp_path, sys.executable, "-m", "tests.wrap.ways")
    assert len(answers) == PYTHON_WAYS
    assert {way: answer["host"] for way, answer in answers.items()} == dict.fromkeys(answers, "queue.fal.run")


async def test_every_way_of_uvloop_reaches_the_server(tmp_path: Path) -> None:
    """uvloop is installed for this test alone: where it is, uvicorn takes it for every server."""
    packages = "uvloop==0.23.0", "aiohttp==3.14.5"
    answers = await all_ways(tmp_path, *command_of(Client("uvloop", "python", packages, "uvloop_ways.py")))
    assert {way: answer["host"] for way, answer in answers.items()} == dict.fromkeys(answers, "queue.fal.run")


async def test_every_way_of_node_reaches_the_server(tmp_path: Path) -> None:
    answers = await all_ways(tmp_path, "node", str(install_programs("wrap") / "ways.mjs"))
    assert len(answers) == NODE_WAYS
    assert answers["ws"]["reason"] == NO_WEBSOCKETS
    assert {way: answer["host"] for way, answer in answers.items()} == dict.fromkeys(answers, "queue.fal.run")


async def test_the_recorder_sees_other_hosts(tmp_path: Path) -> None:
    """Otherwise the tests above could not fail."""
    program = "import httpx, socket\ntry: httpx.get('https://example.com')\nexcept httpx.HTTPError: pass\n"
    program += "try: socket.create_connection(('127.0.0.2', 9))\nexcept OSError: pass"
    async with echo_server() as server, recorder(tmp_path) as recorded:
        code, _, err = await run_wrapped(server, sys.executable, "-c", program, **recorded.environment)
    assert code == 0, err
    assert recorded.proxied == ["CONNECT example.com:443 HTTP/1.1"]
    assert "127.0.0.2" in recorded.addresses
