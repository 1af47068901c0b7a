"""A fleet: a gateway and a worker in processes of their own share a PostgreSQL database, a secret and files."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from keyreel.cli.local_server import LocalServer
from keyreel.media.mp4 import read_metadata
from tests.server.collector import collecting
from tests.server.live import ENDPOINT
from tests.store.postgres import Server, find_programs, restartable_server

pytestmark = pytest.mark.slow

INPUT: dict[str, Any] = {
    "prompt": "a red circle",
    "resolution": "480p",
    "aspect_ratio": "1:1",
    "number_of_frames": 9,
    "number_of_steps": 1,
    "seed": 3,
    "enable_safety_checker": False,
}
ADMIN = "operator:a long secret of the operator"
TIMEOUT = 120.0


@pytest.fixture(scope="module")
def database() -> Iterator[Server]:
    programs = find_programs()
    if not programs:
        pytest.skip("PostgreSQL is not installed")
    with restartable_server(programs) as server:
        yield server


@pytest.fixture
def settings(database: Server, tmp_path: Path) -> dict[str, str]:
    return {
        "KEYREEL_DATABASE_URL": database.url,
        "KEYREEL_SECRET": "a secret that all processes share",
        "KEYREEL_PUBLIC_URL": "http://keyreel.example",
        "KEYREEL_OBJECT_STORE": str(tmp_path / "objects"),
        "KEYREEL_ADMIN_KEY": ADMIN,
        "KEYREEL_PROVENANCE": "false",
    }


@contextmanager
def running(folder: Path, settings: dict[str, str], *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Runs `keyreel ...` with a data folder of its own. Yields the process and its URL on this machine."""
    environment = os.environ | settings | {"KEYREEL_DATA_DIR": str(folder)}
    command = [sys.executable, "-m", "keyreel", *arguments, "--port", "0"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            line = next(line for line in process.stdout if line.startswith("Keyreel"))
            own = re.search(r"http://127\.0\.0\.1:\d+", line)
            local = LocalServer.find(folder)
            yield process, own[0] if own else local.url if local else ""
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(TIMEOUT)


def refused(folder: Path, settings: dict[str, str], *arguments: str) -> str:
    """Returns what a command prints that does not start."""
    command = [sys.executable, "-m", "keyreel", *arguments, "--port", "0"]
    environment = os.environ | settings | {"KEYREEL_DATA_DIR": str(folder)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_worker_makes_the_video_of_a_request_to_a_gateway(
    settings: dict[str, str], checkpoint: Path, tmp_path: Path
) -> None:
    with (
        running(tmp_path / "gateway", settings, "serve", "--no-worker") as (_, gateway),
        running(tmp_path / "worker", settings, "worker", "--model", str(checkpoint), "--device", "cpu") as (
            worker,
            own,
        ),
        httpx.Client(headers={"Authorization": f"Key {ADMIN}"}, timeout=TIMEOUT, trust_env=False) as http,
    ):
        assert http.get(f"{gateway}/health/ready").status_code == 200, "a gateway is ready without a worker"
        output = http.post(f"{gateway}/run/{ENDPOINT}", json=INPUT).json()
        answer = http.get(f"{own}/health/ready")
        assert answer.status_code == 200, answer.text + http.get(f"{gateway}/health").text
        assert "keyreel_finished_total 1.0" in http.get(f"{own}/metrics").text
        assert output["video"]["url"].startswith("http://keyreel.example/files/")
        video = http.get(output["video"]["url"].replace("http://keyreel.example", gateway))
        (tmp_path / "video.mp4").write_bytes(video.content)
        assert read_metadata(tmp_path / "video.mp4")["comment"]
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(TIMEOUT) == 0
        workers = http.get(f"{gateway}/health").json()["workers"]
        assert workers == [], "a drained worker leaves the list"


def test_a_request_is_one_trace_across_processes(settings: dict[str, str], checkpoint: Path, tmp_path: Path) -> None:
    with collecting() as collector:
        traced = {
            **settings,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
            "KEYREEL_ALLOW_HOSTS": "127.0.0.1",
        }
        with (
            running(tmp_path / "gateway", traced, "serve", "--no-worker") as (_, gateway),
            running(tmp_path / "worker", traced, "worker", "--model", str(checkpoint), "--device", "cpu"),
            httpx.Client(headers={"Authorization": f"Key {ADMIN}"}, timeout=TIMEOUT, trust_env=False) as http,
        ):
            webhook = {"fal_webhook": f"{collector.url}/hook"}
            submitted = http.post(f"{gateway}/queue/{ENDPOINT}", json=INPUT, params=webhook).json()
            stream = http.get(f"{gateway}/queue/{ENDPOINT}/requests/{submitted['request_id']}/status/stream")
            assert '"COMPLETED"' in stream.text
            collector.called.wait(TIMEOUT)
        spans = {span.name: span for span in collector.spans()}
        assert len({span.trace_id for span in spans.values()}) == 1, "FastAPI and others add no spans of their own"
        for name in ("queue", "attempt", "webhook"):
            assert spans[name].parent_span_id == spans["submit"].span_id
        for stage in ("denoise", "decode"):
            assert spans[stage].parent_span_id == spans["attempt"].span_id
        assert not any(secret.encode() in body for body in collector.bodies for secret in (INPUT["prompt"], "/hook"))


def test_what_a_fleet_needs_is_named(settings: dict[str, str], tmp_path: Path) -> None:
    del settings["KEYREEL_SECRET"], settings["KEYREEL_OBJECT_STORE"]
    for command in (("worker",), ("serve", "--no-worker")):
        assert "KEYREEL_SECRET, KEYREEL_OBJECT_STORE in every process" in refused(tmp_path, settings, *command)
    assert "needs KEYREEL_SECRET" in refused(tmp_path, settings, "serve")


def test_a_process_with_another_secret_is_refused(settings: dict[str, str], tmp_path: Path) -> None:
    with running(tmp_path / "gateway", settings, "serve", "--no-worker"):
        other = settings | {"KEYREEL_SECRET": "a secret that nobody shares"}
        assert "KEYREEL_SECRET differs" in refused(tmp_path / "other", other, "serve", "--no-worker")


def test_migrate_prints_the_revision(settings: dict[str, str], tmp_path: Path) -> None:
    environment = os.environ | settings | {"KEYREEL_DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "keyreel", "migrate"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=TIMEOUT)
    assert done.stdout == "The tables are at revision 0011.\n"
