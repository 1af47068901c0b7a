"""Finding, checking and naming models. The hub is a small local server of the same HTTP interface."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest

from keyreel import catalogue, checkpoint
from keyreel.canvas import Grid
from keyreel.catalogue import CATALOGUE, LTXV_13B
from keyreel.errors import ModelError
from tests.checkpoints import single_file, tiny_checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("original") / "tiny")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "tiny")


@pytest.fixture
def file(folder: Path) -> Path:
    """A single file with the text encoder beside it."""
    return single_file(folder, folder / "tiny.safetensors")


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


class TestFind:
    def test_folder(self, folder: Path) -> None:
        found = catalogue.find_model(str(folder))
        assert (found.name, found.layout, found.grid) == ("tiny", "diffusers", Grid(32, 8))
        assert found.path == found.text == folder
        assert catalogue.download(found) is found

    def test_single_file(self, file: Path) -> None:
        found = catalogue.find_model(str(file))
        assert (found.name, found.layout) == ("tiny.safetensors", "single-file")
        assert (found.grid, found.path, found.text) == (Grid(32, 8), file, file.parent)

    def test_other_grid(self, tmp_path: Path) -> None:
        folder = tiny_checkpoint(tmp_path / "coarse", spatial=64)
        assert catalogue.find_model(str(folder)).grid == Grid(64, 8)
        file = single_file(folder, folder / "coarse.safetensors")
        assert catalogue.find_model(str(file)).grid == Grid(64, 8)

    def test_grid_from_the_blocks(self, folder: Path) -> None:
        ratios = {"spatial_compression_ratio": None, "temporal_compression_ratio": None}
        edit_json(folder / "vae" / "config.json", **ratios)
        assert catalogue.find_model(str(folder)).grid == Grid(32, 8)

    def test_grid_of_the_oldest_models(self, folder: Path) -> None:
        config = {"patch_size": 4, "patch_size_t": 1, "spatio_temporal_scaling": [True, True, True, False]}
        (folder / "vae" / "config.json").write_text(json.dumps(config))
        assert catalogue.find_model(str(folder)).grid == Grid(32, 8)

    def test_unknown_name_lists_the_choices(self) -> None:
        with pytest.raises(ModelError, match=r"no model 'gpt'.*demo or ltxv-13b-0.9.7-dev.*folder.*hub"):
            catalogue.find_model("gpt")

    def test_missing_file(self) -> None:
        with pytest.raises(ModelError, match=r"no model 'models/ltxv.safetensors'"):
            catalogue.find_model("models/ltxv.safetensors")

    def test_pickle(self, tmp_path: Path) -> None:
        pickle = tmp_path / "model.ckpt"
        pickle.write_bytes(b"\x80\x04.")
        with pytest.raises(ModelError, match=r"not a .safetensors file"):
            catalogue.find_model(str(pickle))

    def test_folder_of_something_else(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"no transformer/config.json"):
            catalogue.find_model(str(tmp_path))

    def test_unreadable_configuration(self, folder: Path) -> None:
        (folder / "vae" / "config.json").write_text("{")
        with pytest.raises(ModelError, match=r"Cannot read .*vae/config.json"):
            catalogue.find_model(str(folder))

    def test_configuration_that_is_no_object(self, folder: Path) -> None:
        (folder / "vae" / "config.json").write_text("[]")
        with pytest.raises(ModelError, match=r"vae/config.json: it holds no JSON object"):
            catalogue.find_model(str(folder))

    def test_other_autoencoder(self, folder: Path) -> None:
        (folder / "vae" / "config.json").write_text("{}")
        with pytest.raises(ModelError, match=r"not the configuration of LTX-Video's autoencoder"):
            catalogue.find_model(str(folder))

    def test_demo(self, original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(catalogue, "DEMO", original)
        assert catalogue.find_model("demo").path == original

    def test_installation_without_demo(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(catalogue, "DEMO", tmp_path / "demo")
        with pytest.raises(ModelError, match="lacks the demo model"):
            catalogue.find_model("demo")


def test_needs_no_torch() -> None:
    code = "import sys, keyreel.catalogue; assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's interface that a download uses: two repositories of the same files, and refusals."""

    folder: ClassVar[Path]
    repos = ("owner/tiny", LTXV_13B)

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        repo = next((repo for repo in self.repos if f"/{repo}/" in path), None)
        if "owner/gated" in path:
            self.refuse(403, "GatedRepo")
        elif "owner/nobody" in path:
            self.refuse(401, "RepoNotFound")
        elif path == f"/api/models/{repo}/revision/main":
            self.answer(json.dumps({"id": repo, "sha": COMMIT}).encode())
        elif path == f"/api/models/{repo}/tree/{COMMIT}":
            self.answer(json.dumps([self.entry(file) for file in self.files()]).encode())
        else:
            self.send(self.folder / path.split("/", 5)[-1])

    do_HEAD = do_GET  # noqa: N815 (http.server's name)

    def files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]

    def entry(self, file: Path) -> dict[str, object]:
        digest, size = hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_size
        entry = {"type": "file", "path": str(file.relative_to(self.folder)), "oid": COMMIT, "size": size}
        is_large = file.suffix == ".safetensors"
        return entry | ({"lfs": {"oid": digest, "size": size, "pointerSize": 134}} if is_large else {})

    def send(self, file: Path) -> None:
        if not (self.path.startswith(tuple(f"/{repo}/resolve/" for repo in self.repos)) and file.is_file()):
            return self.refuse(404, "EntryNotFound")
        content = file.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        return self.answer(content, ETag=f'"{digest if file.suffix == ".safetensors" else digest[:40]}"')

    def refuse(self, status: int, code: str) -> None:
        self.answer(b"", status, **{"X-Error-Code": code})

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (http.server's name)
        pass


@pytest.fixture
def hub(original: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a program that uses the local hub and an empty cache."""
    Hub.folder = shutil.copytree(original, tmp_path / "hub")
    (Hub.folder / "README.md").write_text("not needed")
    (Hub.folder / "media").mkdir()
    (Hub.folder / "media" / "huge.mp4").write_bytes(b"not needed")
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield os.environ | {
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_XET": "1",
            "KEYREEL_CACHE_DIR": str(tmp_path / "cache"),
        }
        server.shutdown()


SCRIPT = """
import json, sys
from keyreel import catalogue, checkpoint
from keyreel.errors import ModelError
from keyreel.settings import Settings
try:
    found = catalogue.find_model(sys.argv[1])
    here = catalogue.download(found)
    checkpoint.check_files(here)
    name = checkpoint.fingerprint(here, Settings().cache_dir)
    grid = [here.grid.spatial, here.grid.temporal]
    print(json.dumps({"was_here": found.is_present, "grid": grid, "text": str(here.text), "sha256": name}))
except ModelError as error:
    print(json.dumps({"error": str(error)}))
"""


def get(name: str, environment: dict[str, str]) -> dict[str, Any]:
    """Finds and downloads a model in a program of its own: the hub's client reads its environment once."""
    command = [sys.executable, "-c", SCRIPT, name]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class TestHub:
    def test_download_then_offline(self, hub: dict[str, str], original: Path, tmp_path: Path) -> None:
        first = get("owner/tiny", hub)
        assert (first["was_here"], first["grid"]) == (False, [32, 8])
        assert first["sha256"] == checkpoint.fingerprint(catalogue.find_model(str(original)), tmp_path)
        parts = sorted(path.name for path in original.iterdir())
        assert sorted(path.name for path in Path(first["text"]).iterdir()) == parts
        assert get("owner/tiny", hub | {"HF_HUB_OFFLINE": "1"}) == first | {"was_here": True}
        # Configurations of three parts and the tokenizer's two files: the weights are named by their hash already.
        assert len(list((tmp_path / "cache" / "hashes").iterdir())) == 5

    def test_half_a_download_is_finished(self, hub: dict[str, str]) -> None:
        folder = Path(get("owner/tiny", hub)["text"])
        (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
        assert "cannot be reached" in get("owner/tiny", hub | {"HF_HUB_OFFLINE": "1"})["error"]
        assert get("owner/tiny", hub)["was_here"] is False

    def test_single_file_alone_fetches_a_text_encoder(self, hub: dict[str, str], file: Path) -> None:
        alone = file.rename(file.parent.parent / "alone.safetensors")
        first = get(str(alone), hub)
        parts = {path.name for path in Path(first["text"]).iterdir()}
        assert (first["was_here"], parts) == (False, {"text_encoder", "tokenizer"})
        assert get(str(alone), hub)["was_here"] is True

    @pytest.mark.parametrize(
        ("repo", "advice"),
        [
            ("owner/gated", "accept its licence at https://huggingface.co/owner/gated"),
            ("owner/nobody", "check the name"),
            ("owner/other", "it holds no model in diffusers' layout"),
            ("owner/a--b", "Cannot get owner/a--b"),
        ],
    )
    def test_refused(self, hub: dict[str, str], repo: str, advice: str) -> None:
        assert advice in get(repo, hub)["error"]

    def test_offline(self, hub: dict[str, str]) -> None:
        error = get("ltxv-13b-0.9.7-dev", hub | {"HF_HUB_OFFLINE": "1"})["error"]
        assert "hub cannot be reached (is HF_HUB_OFFLINE set?)" in error


def test_every_card_says_what_it_is() -> None:
    for name, card in CATALOGUE.items():
        assert card.name == name
        assert card.summary
        assert card.licence
        assert card.repo is None or (card.grid and card.parameters and card.download_size)
