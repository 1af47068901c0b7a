"""What is refused, and what still works, while the disk is almost full."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from keyreel.files.disk import Disk
from keyreel.server.startup import open_services
from keyreel.settings import Settings
from keyreel.store.records import Worker
from tests.server.full_disk import on_a_small_disk
from tests.server.storage_api import Api


@pytest.mark.slow
def test_a_small_disk_keeps_its_floor(tmp_path: Path) -> None:
    if subprocess.run(on_a_small_disk(str(tmp_path), "24m", "true"), capture_output=True).returncode:
        pytest.skip("this system does not permit mounting a small disk")
    program = (sys.executable, "-m", "tests.server.low_disk", str(tmp_path))
    command = on_a_small_disk(str(tmp_path), "24m", *program)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout == "refused in time\n", done.stderr


async def test_readiness_and_metrics_tell_of_it(api: Api, tmp_path: Path) -> None:
    await api.services.store.workers.report(Worker("w", "default", "cpu", "demo", ready=True))
    assert (await api.client.get("/health/ready")).json() == {"status": "ok"}
    api.app.state.services = replace(api.services, disk=Disk((tmp_path,), 2**60))
    ready = await api.client.get("/health/ready")
    assert (ready.status_code, ready.json()) == (200, {"status": "low disk"})
    metrics = dict(
        line.split() for line in (await api.client.get("/metrics")).text.splitlines() if "_disk_" in line[:14]
    )
    assert float(metrics["keyreel_disk_floor_bytes"]) == 2**60
    assert 0 < float(metrics["keyreel_disk_free_bytes"]) < 2**60


@pytest.mark.parametrize("has_worker", [True, False])
async def test_the_disk_of_a_local_database_or_worker_counts(tmp_path: Path, has_worker: bool) -> None:
    settings = Settings(data_dir=tmp_path, object_store=f"file://{tmp_path / 'objects'}")
    async with open_services(settings, "http://keyreel.example", has_worker=has_worker) as services:
        assert services.disk == Disk((tmp_path, tmp_path / "objects"), settings.min_free_bytes)
