"""Every host of fal is redirected, for Python through the proxy and for Node through the preloaded module."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.wrap.programs import echo_server, run_wrapped

HOSTS = {
    "queue.fal.run": "/queue/a",
    "fal.run": "/run/a",
    "ws.fal.run": "/run/a",
    "rest.fal.ai": "/a",
    "rest.alpha.fal.ai": "/a",
    "v3.fal.media": "/a",
    "v3b.fal.media": "/a",
}
"""The hosts that fal's clients have called, with the path on a Keyreel server for their path `/a`."""
PYTHON = """
import httpx, json, sys
print(json.dumps([httpx.get(f"https://{host}/a").json() for host in sys.argv[1:]]))
"""
NODE = """
const answers = process.argv.slice(2).map(async (host) => (await fetch(`https://${host}/a`)).json());
console.log(JSON.stringify(await Promise.all(answers)));
"""

pytestmark = pytest.mark.slow


async def test_python_programs_reach_the_server_for_every_host() -> None:
    async with echo_server() as server:
        code, out, err = await run_wrapped(server, sys.executable, "-c", PYTHON, *HOSTS)
    assert code == 0, err
    # The server needs the Host header to tell fal's hosts apart.
    assert [(answer["host"], answer["path"]) for answer in json.loads(out)] == [(host, "/a") for host in HOSTS]


async def test_node_programs_reach_the_server_for_every_host(tmp_path: Path) -> None:
    node = shutil.which("node")
    if not node:
        pytest.skip("Node is not installed")
    (tmp_path / "app.mjs").write_text(NODE)
    async with echo_server() as server:
        code, out, err = await run_wrapped(server, node, str(tmp_path / "app.mjs"), *HOSTS)
    assert code == 0, err
    assert [answer["path"] for answer in json.loads(out)] == list(HOSTS.values())
