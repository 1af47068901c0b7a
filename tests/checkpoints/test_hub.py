"""`keyreel models pull`, `verify` and `remove`, with the hub's real client and a small hub on 127.0.0.1."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from diffusers import LTXVideoTransformer3DModel

from keyreel.checkpoints import checkpoint
from keyreel.checkpoints.catalogue import LTXV, LTXV_13B, find_model
from tests.fake_hub import MAIN, OLD, FakeHub
from tests.tiny_checkpoints import single_file, tiny_checkpoint

pytestmark = pytest.mark.slow  # each command is a new process

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
MIB = 1 << 20

Keyreel = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose transformer is larger than one chunk of a download (10 MiB)."""
    folder = tiny_checkpoint(tmp_path_factory.mktemp("original") / "tiny")
    transformer = LTXVideoTransformer3DModel(
        in_channels=16,
        out_channels=16,
        num_attention_heads=4,
        attention_head_dim=64,
        cross_attention_dim=256,
        num_layers=6,
        caption_channels=24,
    )
    transformer.save_pretrained(folder / "transformer")
    return folder


@pytest.fixture(scope="module")
def files(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of single files, like Lightricks'."""
    folder = tmp_path_factory.mktemp("files")
    single_file(original, folder / "ltxv-2b-0.9.6-dev-04-25.safetensors")
    another = tiny_checkpoint(tmp_path_factory.mktemp("another") / "tiny", seed=1)
    single_file(another, folder / "ltxv-13b-0.9.8-dev.safetensors")
    (folder / "README.md").write_text("not needed")
    return folder


@pytest.fixture
def hub(original: Path, files: Path, tmp_path: Path) -> Iterator[FakeHub]:
    older = shutil.copytree(original, tmp_path / "older")
    (older / "model_index.json").write_text("{}")
    (original / "README.md").write_text("not needed")
    repositories = {
        "owner/tiny": {MAIN: original, OLD: older},
        "owner/gated": {MAIN: original},
        "owner/other": {MAIN: files},
        LTXV: {MAIN: files},
        LTXV_13B: {MAIN: original},
    }
    with FakeHub(repositories, gated={"owner/gated": "hf_good"}).served() as served:
        yield served


@pytest.fixture
def environment(hub: FakeHub, tmp_path: Path) -> dict[str, str]:
    """The environment of a process that uses this hub and an empty cache."""
    return {name: value for name, value in os.environ.items() if name != "HF_TOKEN"} | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "KEYREEL_CACHE_DIR": str(tmp_path / "cache"),
    }


@pytest.fixture
def keyreel(environment: dict[str, str]) -> Keyreel:
    """Runs `keyreel models ...` in a new process, because the hub's client reads its environment once."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "keyreel", "models", *arguments]
        return subprocess.run(command, env=environment | variables, capture_output=True, text=True, check=False)

    return run


def snapshot(tmp_path: Path, repo: str, commit: str = MAIN) -> Path:
    return tmp_path / "hf" / "hub" / f"models--{repo.replace('/', '--')}" / "snapshots" / commit


class TestPull:
    def test_pulled_model_works_offline(self, keyreel: Keyreel, hub: FakeHub, original: Path, tmp_path: Path) -> None:
        done = keyreel("pull", "owner/tiny")
        assert done.returncode == 0, done.stderr
        digest = checkpoint.fingerprint(find_model(str(original)), tmp_path)
        assert f"SHA-256 {digest}" in done.stdout
        assert "100%" in done.stderr  # progress
        assert "README.md" not in [path for path, _ in hub.log]
        hub.log.clear()
        assert keyreel("pull", "owner/tiny", HF_HUB_OFFLINE="1").stdout == done.stdout
        assert not hub.log

    def test_resumes_after_a_cut_connection(self, keyreel: Keyreel, hub: FakeHub) -> None:
        hub.cut = (WEIGHTS, 21 * MIB)
        done = keyreel("pull", "owner/tiny")
        assert done.returncode == 0, done.stderr
        first, second = [byte_range for path, byte_range in hub.log if path == WEIGHTS]
        assert first is None
        assert second
        assert int(second.removeprefix("bytes=").removesuffix("-")) >= 10 * MIB
        assert keyreel("verify", "owner/tiny").returncode == 0

    def test_revision_can_be_pinned(self, keyreel: Keyreel, tmp_path: Path) -> None:
        for name in ("owner/tiny@v1", f"owner/tiny@{OLD}"):
            assert str(snapshot(tmp_path, "owner/tiny", OLD)) in keyreel("pull", name).stdout.replace("\n", "")
        assert not snapshot(tmp_path, "owner/tiny").exists()
        assert "has no such branch, tag or commit" in keyreel("pull", "owner/tiny@v9").stderr

    def test_single_files_share_a_text_encoder(self, keyreel: Keyreel, hub: FakeHub) -> None:
        assert keyreel("pull", "ltxv-2b-0.9.6-dev").returncode == 0
        listed = {model["name"]: model for model in json.loads(keyreel("--json").stdout)}
        assert [name for name in listed if listed[name]["path"]] == ["demo", "ltxv-2b-0.9.6-dev", "text encoder"]
        assert listed["ltxv-2b-0.9.6-distilled"]["download_size"] == 6_340_000_000
        hub.log.clear()
        done = keyreel("pull", f"{LTXV}/ltxv-13b-0.9.8-dev.safetensors")
        assert done.returncode == 0, done.stderr
        assert {path for path, _ in hub.log} == {"ltxv-13b-0.9.8-dev.safetensors"}

    def test_replaced_file_of_a_catalogue_model_is_refused(self, keyreel: Keyreel) -> None:
        done = keyreel("pull", "ltxv-13b-0.9.8-dev")
        assert done.returncode == 1
        assert "now has another ltxv-13b-0.9.8-dev.safetensors" in done.stderr

    @pytest.mark.parametrize(
        ("repo", "advice"),
        [
            ("owner/nobody", "check the name"),
            ("owner/other", "it holds no model in diffusers' layout"),
            ("owner/a--b", "'owner/a--b' is not a valid name of a hub repository"),
        ],
    )
    def test_failure_is_explained(self, keyreel: Keyreel, repo: str, advice: str) -> None:
        assert advice in keyreel("pull", repo).stderr

    def test_gated_repository_needs_an_accepted_token(self, keyreel: Keyreel, hub: FakeHub) -> None:
        page = f"{hub.url}/owner/gated"
        without = keyreel("pull", "owner/gated").stderr
        assert f"accept its terms on the hub at {page}, then run `hf auth login` or set HF_TOKEN" in without
        refused = keyreel("pull", "owner/gated", HF_TOKEN="hf_other").stderr  # noqa: S106
        assert "Your token's account has no access" in refused
        assert keyreel("pull", "owner/gated", HF_TOKEN="hf_good").returncode == 0  # noqa: S106

    def test_missing_files_are_an_error_offline(self, keyreel: Keyreel) -> None:
        error = keyreel("pull", "ltxv-13b-0.9.7-dev", HF_HUB_OFFLINE="1").stderr
        assert "is not in the hub's cache, and HF_HUB_OFFLINE is set" in error

    def test_incomplete_download_is_not_a_model(self, keyreel: Keyreel, tmp_path: Path) -> None:
        assert keyreel("pull", "owner/tiny").returncode == 0
        (snapshot(tmp_path, "owner/tiny") / "vae" / "diffusion_pytorch_model.safetensors").unlink()
        assert "HF_HUB_OFFLINE is set" in keyreel("pull", "owner/tiny", HF_HUB_OFFLINE="1").stderr
        assert "Download it with: keyreel models pull owner/tiny" in keyreel("verify", "owner/tiny").stderr
        assert keyreel("pull", "owner/tiny").returncode == 0
        assert keyreel("verify", "owner/tiny").returncode == 0


def test_verify_finds_a_flipped_bit(keyreel: Keyreel, tmp_path: Path) -> None:
    keyreel("pull", "owner/tiny")
    done = keyreel("verify", "owner/tiny")
    assert done.stdout.count("as published") == len(done.stdout.splitlines()) == 8
    blob = (snapshot(tmp_path, "owner/tiny") / WEIGHTS).resolve()
    with blob.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read()
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    done = keyreel("verify", "owner/tiny")
    assert done.returncode == 1
    assert f"DAMAGED       {WEIGHTS}" in done.stdout
    assert "Remove the model and pull it again" in done.stderr


class TestRemove:
    def test_removes_the_whole_repository(self, keyreel: Keyreel, tmp_path: Path) -> None:
        keyreel("pull", "owner/tiny")
        done = keyreel("remove", "owner/tiny", "--yes")
        assert done.returncode == 0, done.stderr
        assert "Freed" in done.stdout
        assert not (tmp_path / "hf" / "hub" / "models--owner--tiny").exists()

    def test_removes_nothing_unless_confirmed(self, keyreel: Keyreel, tmp_path: Path) -> None:
        keyreel("pull", "owner/tiny")
        assert keyreel("remove", "owner/tiny").returncode == 1  # no answer
        assert snapshot(tmp_path, "owner/tiny").exists()

    def test_keeps_the_files_of_other_revisions(self, keyreel: Keyreel) -> None:
        keyreel("pull", "owner/tiny")
        keyreel("pull", "owner/tiny@v1")
        keyreel("remove", "owner/tiny", "--yes")
        assert keyreel("verify", "owner/tiny@v1").returncode == 0

    def test_keeps_a_text_encoder_that_other_models_use(self, keyreel: Keyreel) -> None:
        keyreel("pull", "ltxv-2b-0.9.6-dev")
        keyreel("pull", "ltxv-13b-0.9.7-dev")
        done = keyreel("remove", "ltxv-13b-0.9.7-dev", "--yes")
        assert "The text encoder is kept" in done.stdout
        assert keyreel("verify", "ltxv-2b-0.9.6-dev").returncode == 0
        assert keyreel("remove", "ltxv-2b-0.9.6-dev", "--yes").returncode == 0

    def test_refuses_to_remove_a_users_own_folder(self, keyreel: Keyreel, original: Path) -> None:
        done = keyreel("remove", str(original), "--yes")
        assert done.returncode == 1
        assert "was not downloaded by Keyreel" in done.stderr
        assert original.exists()


def test_single_file_on_disk_needs_a_text_encoder_from_the_hub(
    keyreel: Keyreel, hub: FakeHub, files: Path, tmp_path: Path
) -> None:
    alone = shutil.copy(files / "ltxv-2b-0.9.6-dev-04-25.safetensors", tmp_path / "alone.safetensors")
    assert keyreel("pull", str(alone)).returncode == 0
    assert {Path(path).parts[0] for path, _ in hub.log} == {"text_encoder", "tokenizer"}
