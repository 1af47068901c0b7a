"""`keyreel doctor`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from keyreel.checkpoints import catalogue
from keyreel.checkpoints.catalogue import CATALOGUE, ModelCard
from keyreel.checkpoints.checkpoint import Parameters
from keyreel.checkpoints.memory import GIB
from keyreel.cli.doctor import Device, doctor, judge, place
from keyreel.engine import devices
from tests.tiny_checkpoints import tiny_checkpoint

LTXV = CATALOGUE["ltxv-13b-0.9.7-dev"]
CPU = Device("cpu", "", 64 * GIB, 6 * GIB, weight_size=4)

app = typer.Typer()
app.command()(doctor)


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(catalogue, "DEMO", tmp_path / "demo")
    return tiny_checkpoint(tmp_path / "demo")


def gpu(gigabytes: int) -> Device:
    return Device("cuda:0", "", gigabytes * GIB, gigabytes * GIB, weight_size=2)


def parameters(card: ModelCard) -> Parameters:
    assert card.parameters
    return card.parameters


@pytest.mark.usefixtures("demo")
def test_report_names_programs_devices_and_models() -> None:
    done = CliRunner().invoke(app, [], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    for text in (
        "Python",
        "torch",
        "cpu",
        "GiB free",
        "libx264",
        "free for models",
        "Decoder",
        "demo",
        "yes",
        "everything stays",
    ):
        assert text in done.output


@pytest.mark.usefixtures("demo")
def test_a_device_that_does_not_answer_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_device: object) -> tuple[int, int]:
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable")

    monkeypatch.setattr(devices, "memory", fail)
    report = CliRunner().invoke(app, ["--json"])
    assert "busy or unavailable" in json.loads(report.output)["engine_problem"]
    assert report.exit_code == 1


@pytest.mark.usefixtures("demo")
def test_json_report() -> None:
    report = json.loads(CliRunner().invoke(app, ["--json"]).output)
    assert report["devices"][-1]["name"] == "cpu"
    assert report["engine_problem"] is None
    assert report["sandbox"].keys() == {"files", "calls", "namespaces"}
    verdicts = {verdict["model"]: verdict for verdict in report["models"]}
    assert verdicts["demo"]["runs"] is True
    assert verdicts.keys() == CATALOGUE.keys()


@pytest.mark.parametrize(
    ("size", "plan", "need"),
    [
        (80, "everything stays", "38.5"),
        (48, "everything stays", "38.5"),
        (24, "the text encoder and 14 of 48 transformer blocks stream", "23.6"),
    ],
)
def test_gpus_that_run_the_13b_model(size: int, plan: str, need: str) -> None:
    verdict = place(LTXV, parameters(LTXV), [gpu(size), CPU])
    assert (verdict.reason, verdict.plan) == (f"on cuda:0: needs {need} GiB of {size}.0 GiB free", plan)


def test_too_small_devices_are_explained() -> None:
    verdict = place(LTXV, parameters(LTXV), [gpu(6), CPU])
    assert not verdict.runs
    assert verdict.reason == (
        "cuda:0 has 6.0 GiB free, but the model needs at least 6.6 GiB; "
        "cpu has 6.0 GiB free, but the model needs at least 12.5 GiB"
    )


def test_other_device_that_fits_is_proposed() -> None:
    large = Device("cpu", "", 128 * GIB, 120 * GIB, weight_size=4)
    verdict = place(LTXV, parameters(LTXV), [gpu(6), large])
    assert verdict.reason.startswith("with --device cpu: needs 75.")
    assert verdict.reason.endswith("hours per video: the model is meant for a GPU")


def test_download_needs_disk_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert judge(LTXV, [gpu(80)], disk_free=20 * GIB).reason == (
        "the download needs 44.4 GiB; only 20.0 GiB are free on the disk"
    )
    fits = judge(LTXV, [gpu(80)], disk_free=60 * GIB)
    assert fits.runs
    assert fits.reason.endswith("; 44.4 GiB to download first")


def test_damaged_model_does_not_run(demo: Path) -> None:
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
app.add_typer(models, name="models")
app(sys.argv[1:2])
"""


@pytest.mark.slow
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
