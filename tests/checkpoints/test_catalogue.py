"""Finding and naming models."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from keyreel.checkpoints import catalogue
from keyreel.checkpoints.catalogue import CATALOGUE, LTXV_GRID, card_of, catalogue_name
from keyreel.checkpoints.checkpoint import Checkpoint
from keyreel.checkpoints.hub import SHA256
from keyreel.errors import ModelError
from keyreel.video.canvas import Grid
from keyreel.video.recipes import Published
from tests.tiny_checkpoints import single_file, tiny_checkpoint


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


class TestFind:
    def test_folder(self, folder: Path) -> None:
        found = catalogue.find_model(str(folder))
        assert (found.name, found.layout, found.grid) == ("tiny", "diffusers", Grid(32, 8))
        assert found.path == found.text == folder
        assert catalogue.download(found) == found

    def test_single_file(self, file: Path) -> None:
        found = catalogue.find_model(str(file))
        assert (found.name, found.layout) == ("tiny.safetensors", "single-file")
        assert (found.grid, found.path, found.text) == (Grid(32, 8), file, file.parent)

    @pytest.mark.parametrize("kind", ["int8", "fp8"])
    def test_quantisation_suffix(self, folder: Path, kind: str) -> None:
        found = catalogue.find_model(f"{folder}+{kind}")
        assert (found.name, found.path, found.quantisation) == ("tiny", folder, kind)
        assert found.full_name == f"tiny+{kind}"

    def test_without_a_suffix_nothing_is_rounded(self, folder: Path) -> None:
        found = catalogue.find_model(str(folder))
        assert (found.quantisation, found.full_name) == (None, "tiny")

    def test_grid_comes_from_the_configuration(self, tmp_path: Path) -> None:
        folder = tiny_checkpoint(tmp_path / "coarse", spatial=64)
        assert catalogue.find_model(str(folder)).grid == Grid(64, 8)
        file = single_file(folder, folder / "coarse.safetensors")
        assert catalogue.find_model(str(file)).grid == Grid(64, 8)

    def test_grid_without_ratios_comes_from_the_blocks(self, folder: Path) -> None:
        ratios = {"spatial_compression_ratio": None, "temporal_compression_ratio": None}
        edit_json(folder / "vae" / "config.json", **ratios)
        assert catalogue.find_model(str(folder)).grid == Grid(32, 8)

    def test_grid_of_the_oldest_models(self, folder: Path) -> None:
        config = {"patch_size": 4, "patch_size_t": 1, "spatio_temporal_scaling": [True, True, True, False]}
        (folder / "vae" / "config.json").write_text(json.dumps(config))
        assert catalogue.find_model(str(folder)).grid == Grid(32, 8)

    def test_unknown_name_lists_the_choices(self) -> None:
        with pytest.raises(ModelError, match=r"no model 'gpt'.*demo, ltxv-13b-0.9.7-dev.*folder.*hub"):
            catalogue.find_model("gpt")

    def test_missing_file_is_an_error(self) -> None:
        with pytest.raises(ModelError, match=r"no model 'models/ltxv.safetensors'"):
            catalogue.find_model("models/ltxv.safetensors")

    def test_pickle_is_refused(self, tmp_path: Path) -> None:
        pickle = tmp_path / "model.ckpt"
        pickle.write_bytes(b"\x80\x04.")
        with pytest.raises(ModelError, match=r"not a .safetensors file"):
            catalogue.find_model(str(pickle))

    def test_folder_without_a_model_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"no transformer/config.json"):
            catalogue.find_model(str(tmp_path))

    def test_unreadable_configuration_is_an_error(self, folder: Path) -> None:
        (folder / "vae" / "config.json").write_text("{")
        with pytest.raises(ModelError, match=r"Cannot read .*vae/config.json"):
            catalogue.find_model(str(folder))

    def test_configuration_must_be_an_object(self, folder: Path) -> None:
        (folder / "vae" / "config.json").write_text("[]")
        with pytest.raises(ModelError, match=r"vae/config.json: it holds no JSON object"):
            catalogue.find_model(str(folder))

    def test_other_autoencoder_is_refused(self, folder: Path) -> None:
        (folder / "vae" / "config.json").write_text("{}")
        with pytest.raises(ModelError, match=r"not the configuration of LTX-Video's autoencoder"):
            catalogue.find_model(str(folder))

    def test_demo_model(self, original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(catalogue, "DEMO", original)
        assert catalogue.find_model("demo").path == original

    def test_installation_without_the_demo_model_is_reported(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(catalogue, "DEMO", tmp_path / "demo")
        with pytest.raises(ModelError, match="lacks the demo model"):
            catalogue.find_model("demo")


def test_catalogue_needs_no_torch() -> None:
    engine_only = {"torch", "diffusers", "transformers"}
    code = f"import sys, keyreel.checkpoints.catalogue; assert not {engine_only} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_model_cards_are_complete() -> None:
    for name, card in CATALOGUE.items():
        assert card.name == name
        assert card.summary
        assert card.licence
        assert card.repo is None or (card.parameters and card.size)
        assert card.sha256 is None or (card.file and SHA256.fullmatch(card.sha256))
        assert card.file is None or card.file.endswith(".safetensors")


def test_models_run_as_lightricks_publishes_them() -> None:
    """The values are those of the `configs/*.yaml` in github.com/Lightricks/LTX-Video."""
    published = {name: card.published for name, card in CATALOGUE.items() if card.repo}
    dev, distilled = Published("multiscale", 30), Published("multiscale", 8)
    assert published == {
        "ltxv-13b-0.9.7-dev": dev,
        "ltxv-13b-0.9.7-distilled": distilled,
        "ltxv-13b-0.9.8-dev": dev,
        "ltxv-13b-0.9.8-distilled": replace(distilled, tone_map=0.6),
        "ltxv-2b-0.9.5": Published("stg", 40),
        "ltxv-2b-0.9.6-dev": Published("stg", 40),
        "ltxv-2b-0.9.6-distilled": Published("distilled", 8, stochastic_sampling=True),
        "ltxv-2b-0.9.8-distilled": distilled,
    }
    upsamplers = {name: (card.upsampler or "")[-17:] for name, card in CATALOGUE.items() if "0.9.8" in name}
    assert set(upsamplers.values()) == {"0.9.8.safetensors"}


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("ltxv-2b-0.9.6-distilled", "ltxv-2b-0.9.6-distilled"),
        ("ltxv-2b-0.9.6-distilled-04-25.safetensors", "ltxv-2b-0.9.6-distilled"),
        ("Lightricks/LTX-Video-0.9.7-dev", "ltxv-13b-0.9.7-dev"),
        ("Lightricks/LTX-Video", None),
        ("mine.safetensors", None),
    ],
)
def test_a_model_of_the_catalogue_is_known_by_its_file_and_its_repository(name: str, card: str | None) -> None:
    found = card_of(Checkpoint(name, "single-file", LTXV_GRID, None, None))
    assert found == (CATALOGUE[card] if card else None)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("demo", "demo"),
        ("ltxv-13b-0.9.7-dev@main+int8", "ltxv-13b-0.9.7-dev"),
        ("Lightricks/LTX-Video-0.9.7-dev", "ltxv-13b-0.9.7-dev"),
        ("Lightricks/LTX-Video/ltxv-13b-0.9.7-dev.safetensors", "ltxv-13b-0.9.7-dev"),
        ("/models/ltxv-2b-0.9.6-dev-04-25.safetensors+int8", "ltxv-2b-0.9.6-dev"),
        ("/models/ltxv-13b-0.9.8-dev", "ltxv-13b-0.9.8-dev"),
        ("ltx-video-2b-v0.9.5.safetensors", "ltxv-2b-0.9.5"),
        ("Lightricks/LTX-Video", ""),
        ("/models/mine.safetensors", ""),
        ("", ""),
    ],
)
def test_a_model_is_known_by_the_words_that_chose_it(model: str, name: str) -> None:
    assert catalogue_name(model) == name


def test_names_of_the_catalogue() -> None:
    assert list(CATALOGUE) == [
        "demo",
        "ltxv-13b-0.9.7-dev",
        "ltxv-13b-0.9.7-distilled",
        "ltxv-13b-0.9.8-dev",
        "ltxv-13b-0.9.8-distilled",
        "ltxv-2b-0.9.5",
        "ltxv-2b-0.9.6-dev",
        "ltxv-2b-0.9.6-distilled",
        "ltxv-2b-0.9.8-distilled",
    ]
