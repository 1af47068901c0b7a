"""`keyreel models`."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from keyreel.checkpoints import catalogue
from keyreel.checkpoints.catalogue import CATALOGUE
from keyreel.cli.models import gib, list_model, models
from tests.tiny_checkpoints import tiny_checkpoint


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(catalogue, "DEMO", tmp_path / "demo")
    return tiny_checkpoint(tmp_path / "demo")


def test_table_lists_models(demo: Path) -> None:
    done = CliRunner().invoke(models, [], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    for text in ("demo", "0.6 M", str(demo), "ltxv-13b-0.9.7-dev", "14.3 B", "26.6 GiB", "not downloaded"):
        assert text in done.output


def test_table_has_one_line_per_model_in_80_columns() -> None:
    lines = CliRunner().invoke(models, [], env={"COLUMNS": "80"}).output.splitlines()
    for name in ("ltxv-13b-0.9.7-distilled", "text encoder"):
        line = next(line for line in lines if line.strip().startswith(name))
        assert line.rstrip().endswith("not downloaded")


def test_json_lists_models(demo: Path) -> None:
    done = CliRunner().invoke(models, ["--json"])
    here, absent, *_, encoder = json.loads(done.output)
    assert (here["name"], here["path"], here["licence"]) == ("demo", str(demo), "Apache-2.0")
    assert here["size_on_disk"] == sum(
        path.stat().st_size
        for part in ("transformer", "vae", "text_encoder", "tokenizer")
        for path in (demo / part).iterdir()
    )
    assert (here["applications"], absent["applications"]) == ([], ["ltx-video-lora", "ltx-video-13b-dev"])
    assert (absent["path"], absent["size_on_disk"], absent["download_size"]) == (None, 0, 28_600_000_000)
    assert (encoder["name"], encoder["download_size"], encoder["parameters"]) == (
        "text encoder",
        19_050_000_000,
        4_762_310_656,
    )


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_damaged_model_is_not_listed_as_downloaded(demo: Path, damage: str) -> None:
    weights = demo / "vae" / "diffusion_pytorch_model.safetensors"
    if damage == "missing":
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:-1])
    assert list_model(CATALOGUE["demo"]).path is None


def test_sizes_are_shown_in_binary_units() -> None:
    assert gib(26 * 2**30) == "26.0 GiB"
    assert gib(2**20 * 3 // 2) == "1.5 MiB"
