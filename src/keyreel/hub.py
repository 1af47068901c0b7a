"""Files of repositories on the Hugging Face Hub, in the hub's own cache. Needs no torch."""

import hashlib
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from keyreel.errors import ModelError

SHA256 = re.compile(r"[0-9a-f]{64}")
GIT_SHA1 = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class HubFiles:
    """Some files of a repository. revision: a branch, tag or commit; None is its main branch as it is now."""

    repo: str
    patterns: tuple[str, ...]
    revision: str | None = None


def cached(files: HubFiles) -> Path | None:
    """The folder of the repository's files on this machine, if there is one. Some of them may be missing."""
    try:
        return Path(
            snapshot_download(
                files.repo, revision=files.revision, allow_patterns=list(files.patterns), local_files_only=True
            )
        )
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def fetch(files: HubFiles) -> Path:
    """Downloads what is missing, from where an earlier download was cut off. Raises ModelError."""
    try:
        return Path(snapshot_download(files.repo, revision=files.revision, allow_patterns=list(files.patterns)))
    except Exception as error:
        raise unavailable(files.repo, error) from error


def fetch_file(repo: str, name: str, revision: str | None) -> Path:
    """Raises ModelError."""
    try:
        return Path(hf_hub_download(repo, name, revision=revision))
    except Exception as error:
        raise unavailable(repo, error) from error


def unavailable(repo: str, error: Exception) -> ModelError:
    """What to do about a download that failed."""
    page = f"{constants.ENDPOINT}/{repo}"
    match error:
        case GatedRepoError() if error.response.status_code == 401:
            advice = f"it is gated: accept its licence at {page}, then run `hf auth login` or set HF_TOKEN"
        case GatedRepoError():
            advice = f"it is gated, and your token's account has not been let in: accept its licence at {page}"
        case RepositoryNotFoundError():
            advice = "check the name; for a private repository run `hf auth login` or set HF_TOKEN"
        case RevisionNotFoundError():
            advice = "it has no such branch, tag or commit"
        case LocalEntryNotFoundError():
            advice = "it is not on this machine and the hub cannot be reached (is HF_HUB_OFFLINE set?)"
        case EntryNotFoundError():
            advice = "it holds no model in diffusers' layout"
        case _:
            advice = str(error).partition("\n")[0].rstrip(".")
    return ModelError(f"Cannot get {repo} from the hub: {advice}.")


def published_hash(path: Path) -> str | None:
    """What the hub says of a file's content, by which its cache names the file: SHA-256, or git's for small files."""
    blob = path.resolve()
    is_named = blob.parent.name == "blobs" and (SHA256.fullmatch(blob.name) or GIT_SHA1.fullmatch(blob.name))
    return blob.name if is_named else None


def is_as_published(path: Path) -> bool | None:
    """Whether a file's content is what the hub says. Reads it whole. None: nothing is known of it."""
    expected = published_hash(path)
    if expected is None:
        return None
    is_large = SHA256.fullmatch(expected)
    digest = hashlib.sha256() if is_large else hashlib.sha1(f"blob {path.stat().st_size}\0".encode())  # noqa: S324 (git's)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest() == expected


def remove(paths: Iterable[Path]) -> int:
    """Deletes files from the hub's cache, and their repositories there once those hold no weights. Returns bytes."""
    freed = 0
    repositories = set()
    for path in paths:
        repositories.add(_repository(path))
        freed += _remove(path)
    for folder in repositories:
        if not any((folder / "snapshots").rglob("*.safetensors")):
            shutil.rmtree(folder)
    return freed


def is_cached(path: Path) -> bool:
    """Whether a file lies in the hub's cache, where Keyreel may delete it."""
    return path.absolute().is_relative_to(Path(constants.HF_HUB_CACHE).absolute())


def _remove(path: Path) -> int:
    """The content goes with the last snapshot that has it."""
    blob = path.resolve()
    if blob == path.absolute():  # no links on this system: the snapshot holds the content itself
        size = path.stat().st_size
        path.unlink()
        return size
    path.unlink()
    others = (_repository(path) / "snapshots").rglob("*")
    if any(other.resolve() == blob for other in others):
        return 0
    size = blob.stat().st_size
    blob.unlink()
    return size


def _repository(path: Path) -> Path:
    """`models--owner--name` of a file in `models--owner--name/snapshots/commit/...`."""
    parents = path.absolute().parents
    return next(parent.parent for parent in parents if parent.name == "snapshots")
