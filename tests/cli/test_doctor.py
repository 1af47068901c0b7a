"""`keyreel doctor`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from keyreel import catalogue
from keyreel.catalogue import CATALOGUE, GIB, ModelCard
from keyreel.checkpoint import Parameters
from keyreel.cli.doctor import Device, doctor, judge, memory_needed, place
from tests.checkpoints import tiny_checkpoint

LTXV = CATALOGUE["ltxv-13b-0.9.7-dev"]
CPU = Device("cpu", "", 64 * GIB, weight_size=4)

app = typer.Typer()
app.command()(doctor)


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(catalogue, "DEMO", tmp_path / "demo")
    return tiny_checkpoint(tmp_path / "demo")


def gpu(gigabytes: int) -> Device:
    return Device("cuda:0", "", gigabytes * GIB, weight_size=2)


def parameters(card: ModelCard) -> Parameters:
    assert card.parameters
    return card.parameters


@pytest.mark.usefixtures("demo")
def test_report() -> None:
    done = CliRunner().invoke(app, [], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    for text in ("Python", "torch", "cpu", "libx264", "free for models", "demo", "yes"):
        assert text in done.output


@pytest.mark.usefixtures("demo")
def test_json() -> None:
    report = json.loads(CliRunner().invoke(app, ["--json"]).output)
    assert report["devices"][-1]["name"] == "cpu"
    assert report["engine_problem"] is None
    verdicts = {verdict["model"]: verdict for verdict in report["models"]}
    assert verdicts["demo"]["runs"] is True
    assert verdicts.keys() == CATALOGUE.keys()


@pytest.mark.parametrize("size", [40, 48, 80])
def test_gpus_that_run_the_13b_model(size: int) -> None:
    assert place(LTXV, parameters(LTXV), [gpu(size), CPU]).reason == f"on cuda:0: takes 35.5 GiB of {size}.0 GiB"


@pytest.mark.parametrize("size", [8, 24, 32])
def test_gpus_that_are_too_small(size: int) -> None:
    verdict = place(LTXV, parameters(LTXV), [gpu(size), CPU])
    assert not verdict.runs
    assert verdict.reason == f"cuda:0 has {size}.0 GiB, it takes 35.5 GiB; cpu has 64.0 GiB, it takes 87.0 GiB"


def test_another_device_must_be_named() -> None:
    large = Device("cpu", "", 128 * GIB, weight_size=4)
    assert place(LTXV, parameters(LTXV), [gpu(8), large]).reason.startswith("with --device cpu: takes 87.0 GiB")


def test_memory_is_the_sum_of_the_published_sizes() -> None:
    """ltx-engine.md 1.6: 24.3 + 2.3 GiB of weights, and 9 of the text encoder before 8 of the drawing."""
    need = memory_needed(parameters(LTXV), LTXV.working_memory, gpu(80))
    assert need / GIB == pytest.approx(24.3 + 2.3 + 8.9, abs=0.1)


def test_download_needs_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert judge(LTXV, [gpu(80)], disk_free=20 * GIB).reason == (
        "its download takes 43.3 GiB; 20.0 GiB are free on the disk"
    )
    fits = judge(LTXV, [gpu(80)], disk_free=60 * GIB)
    assert fits.runs
    assert fits.reason.endswith("; 43.3 GiB to download first")


def test_damaged_model(demo: Path) -> None:
    (demo / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    verdict = judge(CATALOGUE["demo"], [CPU], disk_free=0)
    assert not verdict.runs
    assert "is incomplete" in verdict.reason


WITHOUT_ENGINE = """
import importlib.metadata, sys
for name in ("torch", "diffusers", "transformers"):
    sys.modules[name] = None  # importing it fails, as if it were not installed
real = importlib.metadata.version
def version(package):
    if package in sys.modules and sys.modules[package] is None:
        raise importlib.metadata.PackageNotFoundError(package)
    return real(package)
if "uninstalled" in sys.argv:
    importlib.metadata.version = version
import typer
from keyreel.cli.doctor import doctor
from keyreel.cli.models import models
app = typer.Typer()
app.command()(doctor)
app.command()(models)
app(sys.argv[1:2])
"""


@pytest.mark.parametrize(
    ("command", "engine", "status", "expected"),
    [
        ("doctor", "uninstalled", 1, "pip install 'keyreel[engine]'"),
        ("doctor", "broken", 1, "the engine does not start"),
        ("models", "uninstalled", 0, "ltxv-13b-0.9.7-dev"),
    ],
)
def test_without_engine(command: str, engine: str, status: int, expected: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_ENGINE, command, engine], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (status, "")
    assert expected in " ".join(done.stdout.split())
