import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from keyreel.checkpoints import catalogue, hub
from keyreel.checkpoints.auxiliary import expected_capabilities, find_auxiliary_weights, is_distilled
from keyreel.checkpoints.catalogue import CATALOGUE
from keyreel.checkpoints.checkpoint import Checkpoint, single_file_config
from keyreel.checkpoints.hub import HubFiles
from keyreel.errors import ModelError
from keyreel.video.recipes import RECIPE_DEFAULTS, Capabilities, RecipeSettings
from tests.tiny_checkpoints import single_file, single_file_upsampler, tiny_lora, tiny_upsampler


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    return shutil.copytree(checkpoint, tmp_path / "tiny")


@pytest.fixture
def catalogued() -> Checkpoint:
    """A model of the catalogue that has an upsampler, as if it were downloaded."""
    name = next(name for name, card in CATALOGUE.items() if card.upsampler)
    return Checkpoint(name, "diffusers", catalogue.LTXV_GRID, Path("/nowhere"), Path("/nowhere"))


def test_model_without_auxiliary_weights(folder: Path, tmp_path: Path) -> None:
    found = catalogue.find_model(str(folder))
    assert (
        expected_capabilities(found, RECIPE_DEFAULTS)
        == find_auxiliary_weights(found, RECIPE_DEFAULTS).capabilities(tmp_path)
        == Capabilities()
    )


def test_upsampler_in_the_models_folder_is_found(folder: Path) -> None:
    tiny_upsampler(folder / "latent_upsampler")
    found = catalogue.find_model(str(folder))
    assert expected_capabilities(found, RECIPE_DEFAULTS).obstacle("multiscale") is None
    assert find_auxiliary_weights(found, RECIPE_DEFAULTS).upsampler == folder / "latent_upsampler"


def test_newest_upsampler_beside_a_single_file_is_found(folder: Path, tmp_path: Path) -> None:
    upsampler = tiny_upsampler(tmp_path / "upsampler")
    for version in ("0.9.7", "0.9.8"):
        newest = single_file_upsampler(upsampler, folder / f"ltxv-spatial-upscaler-{version}.safetensors")
    found = catalogue.find_model(str(single_file(folder, folder / "tiny.safetensors")))
    assert find_auxiliary_weights(found, RECIPE_DEFAULTS).upsampler == newest


@pytest.mark.parametrize("form", ["file", "folder", "pipeline"])
def test_configured_upsampler_precedes_the_models(folder: Path, tmp_path: Path, form: str) -> None:
    tiny_upsampler(folder / "latent_upsampler", seed=1)
    own = tiny_upsampler(tmp_path / "own" / "latent_upsampler")
    file = single_file_upsampler(own, tmp_path / "own.safetensors")
    source, expected = {"file": (file, file), "folder": (own, own), "pipeline": (own.parent, own)}[form]
    found = catalogue.find_model(str(folder))
    auxiliary = find_auxiliary_weights(found, RecipeSettings(upsampler=str(source)))
    assert auxiliary.upsampler == expected
    assert auxiliary.capabilities(tmp_path).used_by("multiscale").keys() == {"upsampler"}


def test_hashes_change_with_the_content(folder: Path, tmp_path: Path) -> None:
    lora = tiny_lora(tmp_path / "lora.safetensors")
    tiny_upsampler(folder / "latent_upsampler")
    found = catalogue.find_model(str(folder))
    recipe_settings = RecipeSettings(distilled_lora=str(lora))
    first = find_auxiliary_weights(found, recipe_settings).capabilities(tmp_path)
    assert all(name and len(name) == 64 for name in (first.upsampler, first.distilled_lora))
    tiny_upsampler(folder / "latent_upsampler", seed=1)
    second = find_auxiliary_weights(found, recipe_settings).capabilities(tmp_path)
    assert second.upsampler != first.upsampler
    assert second.distilled_lora == first.distilled_lora


class TestHub:
    def test_upsampler_of_the_catalogue_is_downloaded(
        self, catalogued: Checkpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        repository = tiny_upsampler(tmp_path / "repository" / "latent_upsampler").parent
        requested: list[HubFiles] = []

        def fetch(files: HubFiles) -> Path:
            requested.append(files)
            return repository

        monkeypatch.setattr(hub, "fetch", fetch)
        assert find_auxiliary_weights(catalogued, RECIPE_DEFAULTS).upsampler == repository / "latent_upsampler"
        assert requested == [HubFiles("Lightricks/ltxv-spatial-upscaler-0.9.7", ("latent_upsampler/*",))]

    def test_failed_download_matters_only_if_the_upsampler_is_required(
        self, catalogued: Checkpoint, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(files: HubFiles) -> Path:
            raise ModelError(f"Cannot get {files.repo} from the hub")

        monkeypatch.setattr(hub, "fetch", refuse)
        assert find_auxiliary_weights(catalogued, RECIPE_DEFAULTS).upsampler is None
        for recipe_settings in (RecipeSettings(recipe="multiscale"), RecipeSettings(upsampler="owner/name")):
            with pytest.raises(ModelError, match="Cannot get"):
                find_auxiliary_weights(catalogued, recipe_settings)


def test_lora_that_is_not_in_the_cache_is_an_error_offline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="owner/name is not in the hub's cache"):
        find_auxiliary_weights(
            catalogue.find_model(str(folder)), RecipeSettings(distilled_lora="owner/name/lora.safetensors")
        )


@pytest.mark.parametrize(
    ("recipe_settings", "message"),
    [
        (RecipeSettings(upsampler="/nowhere/upsampler.safetensors"), "KEYREEL_UPSAMPLER: there is no /nowhere"),
        (RecipeSettings(upsampler="missing.safetensors"), "KEYREEL_UPSAMPLER: there is no missing"),
        (RecipeSettings(upsampler="."), "holds no latent upsampler"),
        (RecipeSettings(distilled_lora="/nowhere/lora.safetensors"), "KEYREEL_DISTILLED_LORA: there is no /nowhere"),
        (RecipeSettings(distilled_lora="owner/name"), "KEYREEL_DISTILLED_LORA: there is no owner/name"),
    ],
    ids=str,
)
def test_missing_weights_are_errors(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recipe_settings: RecipeSettings, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=message):
        find_auxiliary_weights(catalogue.find_model(str(folder)), recipe_settings)


def test_distilled_model_needs_no_lora(folder: Path, tmp_path: Path) -> None:
    recipe_settings = RecipeSettings(distilled_lora=str(tiny_lora(tmp_path / "lora.safetensors")))
    found = catalogue.find_model(str(folder.rename(folder.parent / "distilled")))
    assert find_auxiliary_weights(found, recipe_settings).distilled_lora is None
    assert expected_capabilities(found, recipe_settings).distilled_lora is None


def test_distilled_model_is_recognised_by_its_name(folder: Path) -> None:
    assert not is_distilled(catalogue.find_model(str(folder)))
    renamed = folder.rename(folder.parent / "ltxv-13b-0.9.7-Distilled")
    assert is_distilled(catalogue.find_model(str(renamed)))


def test_distilled_model_is_recognised_by_its_configuration(folder: Path) -> None:
    path = single_file(folder, folder / "tiny.safetensors")
    assert not is_distilled(catalogue.find_model(str(path)))
    config = single_file_config(path) | {"allowed_inference_steps": [1.0, 0.9937]}
    save_file(load_file(path), path, metadata={"config": json.dumps(config)})
    assert is_distilled(catalogue.find_model(str(path)))
