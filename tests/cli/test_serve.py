"""`keyreel serve` as a real process, and the lines that it prints for programs."""

import json
import re
import shlex
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from keyreel.cli.serve import _Trust, _welcome
from keyreel.net.certificates import Certificate
from keyreel.settings import Settings
from tests.cli.servers import TIMEOUT, manage_keys, printed_address, running_serve, serving, start_error, submit
from tests.js import JS, environment, install
from tests.server.live import ENDPOINT

# Both programs print the status of a request in the queue, and its error after they have cancelled it.
PYTHON = """
import fal_client
handle = fal_client.submit("fal-ai/ltx-video-lora/multiconditioning", {"prompt": "a fox"})
print(type(handle.status()).__name__)
handle.cancel()
try:
    handle.get()
except fal_client.FalClientHTTPError as error:
    print(error.status_code)
"""
NODE = """
import { fal } from "@fal-ai/client";
CONFIG
const id = "fal-ai/ltx-video-lora/multiconditioning";
const { request_id: requestId } = await fal.queue.submit(id, { input: { prompt: "a fox" } });
console.log((await fal.queue.status(id, { requestId })).status);
await fal.queue.cancel(id, { requestId });
await fal.queue.result(id, { requestId }).catch((error) => console.log(error.status));
"""

SMALL = {
    "prompt": "a red circle",
    "resolution": "480p",
    "number_of_frames": 9,
    "number_of_steps": 1,
    "enable_safety_checker": False,
}

pytestmark = pytest.mark.slow


def test_the_first_start_prints_a_key_and_the_second_keeps_the_queue(tmp_path: Path) -> None:
    with serving(tmp_path) as (url, first):
        answer = submit(url, first)
        assert answer.status_code == 200
        assert answer.json()["status_url"].startswith(f"{url}/queue/")
        assert (tmp_path / "server.json").stat().st_mode & 0o077 == 0
    assert not (tmp_path / "server.json").exists()
    assert first.split(":")[1].encode() not in (tmp_path / "keyreel.db").read_bytes()

    with serving(tmp_path, KEYREEL_PUBLIC_URL="https://videos.example/api/") as (url, shown):
        assert (url, shown) == ("https://videos.example/api", "")
        server = json.loads((tmp_path / "server.json").read_text())["url"]
        # The request is still in the queue.
        path = httpx.URL(answer.json()["status_url"]).path
        status = httpx.get(f"{server}{path}", headers={"Authorization": f"Key {first}"}, trust_env=False)
        assert status.json()["status"] == "IN_QUEUE"
        assert status.json()["status_url"].startswith("https://videos.example/api/queue/")


def test_two_devices_make_one_video(tmp_path: Path, checkpoint: Path) -> None:
    options = ("--worker", "--model", str(checkpoint), "--device", "cpu,cpu")
    with running_serve(tmp_path, *options, KEYREEL_PROVENANCE="false") as printed:
        url, credentials = printed_address(printed)
        headers = {"Authorization": f"Key {credentials}"}
        with httpx.Client(base_url=url, headers=headers, timeout=4 * TIMEOUT, trust_env=False) as http:
            output = http.post(f"/run/{ENDPOINT}", json=SMALL).json()
            assert http.get(output["video"]["url"]).content[4:8] == b"ftyp"
            (worker,) = http.get("/health").json()["workers"]
    assert worker["device"] == "cpu,cpu"


def test_a_folder_or_a_port_in_use_ends_the_start(tmp_path: Path) -> None:
    with serving(tmp_path) as (url, _):
        port = url.rpartition(":")[2]
        assert "is in use by process" in start_error("--port", "0", "--data-dir", str(tmp_path))
        assert f"Cannot listen on 127.0.0.1, port {port}" in start_error(
            "--port", port, "--data-dir", str(tmp_path / "b")
        )


def test_programs_work_with_the_lines_that_tls_prints(tmp_path: Path) -> None:
    install()
    with running_serve(tmp_path / "data", "--tls") as printed:
        url, key = printed_address(printed)
        assert url.startswith("https://127.0.0.1:")
        (exports,) = re.findall(r"Python +export (.*\n.*)\n", printed)
        variables = dict(word.split("=", 1) for word in shlex.split(exports.replace("\\\n", " ")))
        assert variables["FAL_KEY"] == key
        assert run(sys.executable, "-c", PYTHON, **variables) == ["Queued", "499"]

        (config,) = re.findall(r"fal\.config\(.*?\);", printed, re.DOTALL)
        (authority,) = re.findall("export NODE_EXTRA_CA_CERTS=(.*)", printed)
        (tmp_path / "node_modules").symlink_to(JS / "node_modules")
        (tmp_path / "app.mjs").write_text(NODE.replace("CONFIG", config))
        node = run("node", str(tmp_path / "app.mjs"), NODE_EXTRA_CA_CERTS=authority)
        assert node == ["IN_QUEUE", "499"]

        assert f"curl --cacert {authority} {url}/run/" in printed
        (body,) = re.findall("-d '(.*)'", printed)
        assert json.loads(body)["resolution"] == "480p"  # at 720p, the first video on a CPU takes minutes
        health = httpx.get(f"{url}/health", verify=ssl.create_default_context(cafile=authority), trust_env=False)
        assert health.status_code == 200
        assert manage_keys(tmp_path / "data", "create", "another").exit_code == 0
    trusted = Path(authority).read_bytes()
    with running_serve(tmp_path / "data", "--tls"):
        assert Path(authority).read_bytes() == trusted


def run(*command: str, **variables: str) -> list[str]:
    done = subprocess.run(command, env=environment(**variables), capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_lines_for_clients_name_the_versions_that_they_are_for() -> None:
    """An older client would ignore the line, and call fal with the key."""
    plain = _welcome("http://127.0.0.1:8000", None, None, Settings().data_dir)
    assert "@fal-ai/client before 1.10" in plain
    assert "import os, fal_client.client  # 0.5 or later" in plain
    authority = Path("authority.pem")
    trust = _Trust(Certificate(authority, authority), authority, authority)
    assert "From fal_client 0.11 on" in _welcome("https://127.0.0.1:8000", None, trust, Settings().data_dir)


def test_the_line_for_another_key_names_the_data_folder(tmp_path: Path) -> None:
    """Elsewhere, the key would be one of another server."""
    usual = _welcome("http://127.0.0.1:8000", None, None, Settings().data_dir)
    assert "For another key: keyreel keys create NAME\n" in usual
    other = _welcome("http://127.0.0.1:8000", None, None, tmp_path / "my videos")
    assert f"For another key: keyreel keys create NAME --data-dir '{tmp_path}/my videos'\n" in other
