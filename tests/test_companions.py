import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from keyreel import catalogue, hub
from keyreel.catalogue import CATALOGUE
from keyreel.checkpoint import Checkpoint, single_file_config
from keyreel.companions import expected_abilities, find_companions, is_distilled
from keyreel.errors import ModelError
from keyreel.hub import HubFiles
from keyreel.recipes import NO_WISHES, Abilities, Wishes
from tests.checkpoints import single_file, single_file_upsampler, tiny_lora, tiny_upsampler


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    return shutil.copytree(checkpoint, tmp_path / "tiny")


@pytest.fixture
def card() -> Checkpoint:
    """A model of the catalogue, as if it were here."""
    name = next(name for name, card in CATALOGUE.items() if card.upsampler)
    return Checkpoint(name, "diffusers", catalogue.LTXV_GRID, Path("/nowhere"), Path("/nowhere"))


def test_a_bare_model_has_none(folder: Path, tmp_path: Path) -> None:
    found = catalogue.find_model(str(folder))
    assert expected_abilities(found, NO_WISHES) == find_companions(found, NO_WISHES).abilities(tmp_path) == Abilities()


def test_an_upsampler_lies_in_the_models_folder(folder: Path) -> None:
    tiny_upsampler(folder / "latent_upsampler")
    found = catalogue.find_model(str(folder))
    assert expected_abilities(found, NO_WISHES).obstacle("multiscale") is None
    assert find_companions(found, NO_WISHES).upsampler == folder / "latent_upsampler"


def test_an_upsampler_lies_beside_a_single_file(folder: Path, tmp_path: Path) -> None:
    upsampler = tiny_upsampler(tmp_path / "upsampler")
    for version in ("0.9.7", "0.9.8"):
        newest = single_file_upsampler(upsampler, folder / f"ltxv-spatial-upscaler-{version}.safetensors")
    found = catalogue.find_model(str(single_file(folder, folder / "tiny.safetensors")))
    assert find_companions(found, NO_WISHES).upsampler == newest


@pytest.mark.parametrize("form", ["file", "folder", "pipeline"])
def test_an_upsampler_of_ones_own(folder: Path, tmp_path: Path, form: str) -> None:
    tiny_upsampler(folder / "latent_upsampler", seed=1)
    own = tiny_upsampler(tmp_path / "own" / "latent_upsampler")
    file = single_file_upsampler(own, tmp_path / "own.safetensors")
    source, expected = {"file": (file, file), "folder": (own, own), "pipeline": (own.parent, own)}[form]
    found = catalogue.find_model(str(folder))
    companions = find_companions(found, Wishes(upsampler=str(source)))
    assert companions.upsampler == expected
    assert companions.abilities(tmp_path).used_by("multiscale").keys() == {"upsampler"}


def test_what_lies_there_has_a_hash(folder: Path, tmp_path: Path) -> None:
    lora = tiny_lora(tmp_path / "lora.safetensors")
    tiny_upsampler(folder / "latent_upsampler")
    found = catalogue.find_model(str(folder))
    wishes = Wishes(distilled_lora=str(lora))
    first = find_companions(found, wishes).abilities(tmp_path)
    assert all(name and len(name) == 64 for name in (first.upsampler, first.distilled_lora))
    tiny_upsampler(folder / "latent_upsampler", seed=1)
    second = find_companions(found, wishes).abilities(tmp_path)
    assert second.upsampler != first.upsampler
    assert second.distilled_lora == first.distilled_lora


class TestHub:
    def test_the_catalogues_upsampler_comes_along(
        self, card: Checkpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        repository = tiny_upsampler(tmp_path / "repository" / "latent_upsampler").parent
        asked: list[HubFiles] = []

        def fetch(files: HubFiles) -> Path:
            asked.append(files)
            return repository

        monkeypatch.setattr(hub, "fetch", fetch)
        assert find_companions(card, NO_WISHES).upsampler == repository / "latent_upsampler"
        assert asked == [HubFiles("Lightricks/ltxv-spatial-upscaler-0.9.7", ("latent_upsampler/*",))]

    def test_out_of_reach(self, card: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(files: HubFiles) -> Path:
            raise ModelError(f"Cannot get {files.repo} from the hub")

        monkeypatch.setattr(hub, "fetch", refuse)
        assert find_companions(card, NO_WISHES).upsampler is None
        for wishes in (Wishes(recipe="multiscale"), Wishes(upsampler="owner/name")):
            with pytest.raises(ModelError, match="Cannot get"):
                find_companions(card, wishes)


def test_a_lora_that_is_nowhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="Cannot get owner/name from the hub"):
        find_companions(catalogue.find_model(str(folder)), Wishes(distilled_lora="owner/name/lora.safetensors"))


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        (Wishes(upsampler="/nowhere/upsampler.safetensors"), "KEYREEL_UPSAMPLER: there is no /nowhere"),
        (Wishes(upsampler="missing.safetensors"), "KEYREEL_UPSAMPLER: there is no missing"),
        (Wishes(upsampler="."), "holds no latent upsampler"),
        (Wishes(distilled_lora="/nowhere/lora.safetensors"), "KEYREEL_DISTILLED_LORA: there is no /nowhere"),
        (Wishes(distilled_lora="owner/name"), "KEYREEL_DISTILLED_LORA: there is no owner/name"),
    ],
    ids=str,
)
def test_what_names_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wishes: Wishes, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=message):
        find_companions(catalogue.find_model(str(folder)), wishes)


def test_a_distilled_model_needs_no_lora(folder: Path, tmp_path: Path) -> None:
    wishes = Wishes(distilled_lora=str(tiny_lora(tmp_path / "lora.safetensors")))
    found = catalogue.find_model(str(folder.rename(folder.parent / "distilled")))
    assert find_companions(found, wishes).distilled_lora is None
    assert expected_abilities(found, wishes).distilled_lora is None


def test_distilled_by_name(folder: Path) -> None:
    assert not is_distilled(catalogue.find_model(str(folder)))
    renamed = folder.rename(folder.parent / "ltxv-13b-0.9.7-Distilled")
    assert is_distilled(catalogue.find_model(str(renamed)))


def test_distilled_by_what_the_file_says(folder: Path) -> None:
    path = single_file(folder, folder / "tiny.safetensors")
    assert not is_distilled(catalogue.find_model(str(path)))
    config = single_file_config(path) | {"allowed_inference_steps": [1.0, 0.9937]}
    save_file(load_file(path), path, metadata={"config": json.dumps(config)})
    assert is_distilled(catalogue.find_model(str(path)))
