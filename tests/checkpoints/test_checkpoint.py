"""The contents of model files, and whether they are complete."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from keyreel.checkpoints import checkpoint
from keyreel.checkpoints.catalogue import find_model
from keyreel.errors import ModelError


class TestSingleFileConfig:
    def write(self, path: Path, config: object) -> Path:
        save_file({}, path, metadata={"config": json.dumps(config)})
        return path

    def test_missing_configuration_is_an_error(self, tmp_path: Path) -> None:
        save_file({}, tmp_path / "lora.safetensors")
        with pytest.raises(ModelError, match="does not say what model"):
            find_model(str(tmp_path / "lora.safetensors"))

    def test_other_model_is_refused(self, tmp_path: Path) -> None:
        config = {
            "vae": {"_class_name": "CausalVideoAutoencoder"},
            "transformer": {"_class_name": "AVTransformer3DModel"},
        }
        with pytest.raises(ModelError, match=r"a model other than LTX-Video: .*AVTransformer3DModel"):
            find_model(str(self.write(tmp_path / "ltx2.safetensors", config)))

    def test_older_autoencoder_is_refused(self, tmp_path: Path) -> None:
        config = {
            "vae": {"_class_name": "CausalVideoAutoencoder", "blocks": [["res_x", 4]], "patch_size": 4},
            "transformer": {"_class_name": "Transformer3DModel"},
        }
        with pytest.raises(ModelError, match=r"older than LTX-Video 0.9.5"):
            find_model(str(self.write(tmp_path / "old.safetensors", config)))

    def test_truncated_file_is_refused(self, file: Path) -> None:
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(ModelError, match="damaged or cut short"):
            find_model(str(file))


class TestCheckFiles:
    def test_complete_models_pass(self, folder: Path, file: Path) -> None:
        for path in (folder, file):
            checkpoint.check_files(find_model(str(path)))

    @pytest.mark.parametrize(
        "missing",
        [
            "transformer/diffusion_pytorch_model.safetensors",
            "vae/diffusion_pytorch_model.safetensors",
            "text_encoder/config.json",
        ],
    )
    def test_missing_file_is_an_error(self, folder: Path, missing: str) -> None:
        (folder / missing).unlink()
        with pytest.raises(ModelError, match=f"incomplete: .*{missing} is missing"):
            checkpoint.check_files(find_model(str(folder)))

    def test_missing_tokenizer_is_an_error(self, folder: Path) -> None:
        shutil.rmtree(folder / "tokenizer")
        with pytest.raises(ModelError, match=r"incomplete: .*tokenizer"):
            checkpoint.check_files(find_model(str(folder)))

    def test_tokenizer_without_vocabulary_is_an_error(self, folder: Path) -> None:
        """transformers would load it and take every word for an unknown one."""
        (folder / "tokenizer" / "tokenizer.json").unlink()
        with pytest.raises(ModelError, match=r"incomplete: .*tokenizer/spiece.model is missing"):
            checkpoint.check_files(find_model(str(folder)))

    @pytest.mark.parametrize("name", ["../vae/diffusion_pytorch_model.safetensors", "/etc/hostname"])
    def test_shard_outside_the_folder_is_an_error(self, folder: Path, name: str) -> None:
        index = folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(ModelError, match="names a file outside its folder"):
            checkpoint.check_files(find_model(str(folder)))

    @pytest.mark.parametrize("content", [{}, {"weight_map": ["a"]}, {"weight_map": {"a": 1}}])
    def test_invalid_index_is_an_error(self, folder: Path, content: object) -> None:
        index = folder / "vae" / "diffusion_pytorch_model.safetensors.index.json"
        index.write_text(json.dumps(content))
        with pytest.raises(ModelError, match="it has no valid `weight_map`"):
            checkpoint.check_files(find_model(str(folder)))

    def test_missing_shard_is_an_error(self, folder: Path) -> None:
        weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
        index = {"weight_map": {"a": weights.name, "b": "diffusion_pytorch_model-00002-of-00002.safetensors"}}
        weights.with_name(weights.name + ".index.json").write_text(json.dumps(index))
        with pytest.raises(ModelError, match=r"00002-of-00002.safetensors is missing"):
            checkpoint.check_files(find_model(str(folder)))

    def test_truncated_file_is_an_error(self, folder: Path) -> None:
        weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1])
        with pytest.raises(ModelError, match=r"vae/diffusion_pytorch_model.safetensors is damaged or cut short"):
            checkpoint.check_files(find_model(str(folder)))


class TestFingerprint:
    def fingerprint(self, path: Path, cache: Path) -> str:
        return checkpoint.fingerprint(find_model(str(path)), cache)

    def test_depends_on_the_content_not_the_folder(self, folder: Path, tmp_path: Path) -> None:
        here = self.fingerprint(folder, tmp_path / "cache")
        assert len(here) == 64
        assert here == self.fingerprint(folder, tmp_path / "cache")
        assert here == self.fingerprint(folder.rename(tmp_path / "elsewhere"), tmp_path / "other cache")

    def test_does_not_depend_on_the_name_of_a_single_file(self, file: Path, tmp_path: Path) -> None:
        before = self.fingerprint(file, tmp_path)
        assert before == self.fingerprint(file.rename(file.with_name("other.safetensors")), tmp_path)

    @pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder", "tokenizer"])
    def test_depends_on_every_part(self, folder: Path, tmp_path: Path, part: str) -> None:
        before = self.fingerprint(folder, tmp_path)
        changed = max((folder / part).iterdir(), key=lambda path: path.stat().st_size)
        content = bytearray(changed.read_bytes())
        content[-1] ^= 1
        changed.write_bytes(content)
        assert self.fingerprint(folder, tmp_path) != before

    def test_is_cached_by_size_and_time(self, folder: Path, tmp_path: Path) -> None:
        before = self.fingerprint(folder, tmp_path)
        weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
        stat = weights.stat()
        weights.write_bytes(bytes(stat.st_size))
        os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert self.fingerprint(folder, tmp_path) == before


def test_parameters_and_sizes(folder: Path, file: Path) -> None:
    found = find_model(str(folder))
    counted = checkpoint.count_parameters(found)
    assert counted.total == counted.transformer.total + counted.vae + counted.text_encoder.total
    assert 4 * counted.total < checkpoint.size_on_disk(found) < 4 * counted.total + 100_000
    for stack, blocks in ((counted.transformer, 2), (counted.text_encoder, 2)):
        assert stack.blocks == blocks
        assert 0 < stack.rest < stack.total
    assert (counted.width, counted.detail) == (32, 4 / 4**2)
    # Lightricks' files hold three more statistics with one value per channel.
    statistics = 3 * 16
    assert checkpoint.count_parameters(find_model(str(file))) == replace(counted, vae=counted.vae + statistics)
