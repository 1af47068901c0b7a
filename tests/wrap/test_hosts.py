"""Every host of fal is redirected, through the proxy and at the sockets. Those that nobody knows are refused."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.wrap.programs import echo_server, recorder, run_wrapped

HOSTS = (
    "queue.fal.run",
    "fal.run",
    "ws.fal.run",
    "rest.fal.ai",
    "rest.alpha.fal.ai",
    "api.fal.ai",
    "fal.media",
    "v3.fal.media",
    "v3b.fal.media",
    "falrun.com",
    "queue.falrun.com",
)
"""The hosts that fal's clients have called."""
UNKNOWN = ("gateway.fal.run", "fal.ai", "rest.beta.fal.ai", "v9.fal.media", "a.b.c.fal.run", "ws.falrun.com")
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
    assert [(answer["host"], answer["path"]) for answer in json.loads(out)] == [(host, "/a") for host in HOSTS]


PYTHON_REFUSED = """
import httpx, json, sys
answers = [httpx.get(f"https://{host}/a", trust_env=trust) for host in sys.argv[1:] for trust in (True, False)]
print(json.dumps([(answer.status_code, answer.json()["detail"]) for answer in answers]))
"""
NODE_REFUSED = """
const answers = process.argv.slice(2).map(async (host) => {
  const answer = await fetch(`https://${host}/a`);
  return [answer.status, (await answer.json()).detail];
});
console.log(JSON.stringify(await Promise.all(answers)));
"""


@pytest.mark.parametrize("language", ["python", "node"])
async def test_hosts_of_fal_that_nobody_knows_are_refused(tmp_path: Path, language: str) -> None:
    program = tmp_path / ("app.py" if language == "python" else "app.mjs")
    program.write_text(PYTHON_REFUSED if language == "python" else NODE_REFUSED)
    command = sys.executable if language == "python" else shutil.which("node")
    if not command:
        pytest.skip("Node is not installed")
    async with echo_server() as server, recorder(tmp_path) as recorded:
        code, out, err = await run_wrapped(server, command, str(program), *UNKNOWN, **recorded.environment)
    assert code == 0, err
    answers = json.loads(out)
    assert {status for status, _ in answers} == {403}
    for host in UNKNOWN:
        assert f"keyreel: the program called {host}, a host of fal that Keyreel does not serve." in err
        assert any(f"{host} is a host of fal that Keyreel does not serve" in detail for _, detail in answers)
    assert recorded.proxied == []
    assert recorded.addresses <= {"127.0.0.1"}


@pytest.mark.parametrize("language", ["python", "node"])
async def test_plain_http_to_fal_is_refused(tmp_path: Path, language: str) -> None:
    """The key would cross the network readable, and nothing here answers for it."""
    program = tmp_path / ("app.py" if language == "python" else "app.mjs")
    lines = {"python": "import httpx; httpx.get('http://fal.run/a')", "node": "await fetch('http://fal.run/a')"}
    program.write_text(lines[language])
    command = sys.executable if language == "python" else shutil.which("node")
    if not command:
        pytest.skip("Node is not installed")
    async with echo_server() as server, recorder(tmp_path) as recorded:
        code, _, err = await run_wrapped(server, command, str(program), **recorded.environment)
    assert code == 1
    assert "keyreel wrap: refused a connection to fal.run:80. Only HTTPS is led to Keyreel." in err
    assert recorded.addresses <= {"127.0.0.1"}
