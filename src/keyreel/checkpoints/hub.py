"""Files of repositories on the Hugging Face Hub, in the hub's cache on this machine. Needs no torch."""

import hashlib
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import (
    HfApi,
    constants,
    get_token,
    hf_hub_download,
    is_offline_mode,
    scan_cache_dir,
    snapshot_download,
)
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    CacheNotFound,
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    HTTPError,  # from httpx or httpx2, depending on the version of huggingface_hub
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from keyreel.errors import ModelError

REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*(?<!\.safetensors)", re.ASCII)
SHA256 = re.compile(r"[0-9a-f]{64}")
GIT_SHA1 = re.compile(r"[0-9a-f]{40}")
LIST_TIMEOUT = 10.0
"""Seconds that listing a repository's files may take."""


class NoTokenError(Exception):
    """The repository is gated, and no token is used."""


HUB_ERRORS = (CacheNotFound, EntryNotFoundError, HFValidationError, HTTPError, NoTokenError, OfflineModeIsEnabled)
"""Errors that concern a repository. An OSError of the disk is not one of them: it concerns this machine."""
GATED_ERRORS = (GatedRepoError, NoTokenError)
CLOSED_ERRORS = (*GATED_ERRORS, RepositoryNotFoundError)
"""Errors that a token may help against."""


@dataclass(frozen=True, slots=True)
class HubFiles:
    """Some files of a repository. revision: a branch, tag or commit; None is the latest commit of the main branch."""

    repo: str
    patterns: tuple[str, ...]
    revision: str | None = None


def own_token() -> str | None:
    """Returns the token of the user who runs this process, unless HF_HUB_DISABLE_IMPLICIT_TOKEN forbids its use."""
    return None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()


def use_token(token: str | None) -> None:
    """Uses `token` in this process from now on. `/proc` does not show it, unlike what the process started with."""
    if token:
        os.environ["HF_TOKEN"] = token


def cached(files: HubFiles) -> Path | None:
    """Returns the folder of the repository's files in the cache, or None. Some of the files may be missing."""
    try:
        return Path(
            snapshot_download(
                files.repo, revision=files.revision, allow_patterns=list(files.patterns), local_files_only=True
            )
        )
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def fetch(files: HubFiles) -> Path:
    """Downloads the files that are missing and returns their folder. Resumes partial downloads. Raises ModelError."""
    try:
        return Path(snapshot_download(files.repo, revision=files.revision, allow_patterns=list(files.patterns)))
    except Exception as error:
        raise ModelError(translate_error(files.repo, error)) from error


def fetch_file(repo: str, name: str, revision: str | None) -> Path:
    """Downloads one file unless it is cached, and returns its path. Raises ModelError."""
    try:
        return Path(hf_hub_download(repo, name, revision=revision))
    except Exception as error:
        raise ModelError(translate_error(repo, error)) from error


def file_sizes(repo: str, api: HfApi) -> dict[str, int]:
    """Returns the bytes of each file on the main branch; offline, of each cached file. Raises one of HUB_ERRORS."""
    if is_offline_mode():
        return _cached_sizes(repo)
    info = api.model_info(repo, files_metadata=True, timeout=LIST_TIMEOUT)
    if info.gated and api.token is False:
        raise NoTokenError  # else its files would be taken from the cache, if the operator uses them
    return {file.rfilename: file.size or 0 for file in info.siblings or ()}


def translate_error(repo: str, error: Exception) -> str:
    """Returns one sentence for the user: what failed and what to do about it."""
    page = f"{constants.ENDPOINT}/{repo}"
    match error:
        case GatedRepoError() if error.response.status_code == 401:
            return f"{repo} is gated: accept its terms on the hub at {page}, then run `hf auth login` or set HF_TOKEN."
        case GatedRepoError():
            return f"{repo} is gated: accept its terms on the hub at {page}. Your token's account has no access yet."
        case RepositoryNotFoundError():
            return f"{repo} is not on the hub, or private: check the name, or set HF_TOKEN."
        case RevisionNotFoundError():
            return f"{repo} has no such branch, tag or commit."
        case HFValidationError():
            return f"{repo!r} is not a valid name of a hub repository."
        case _ if is_offline_mode():
            return f"{repo} is not in the hub's cache, and HF_HUB_OFFLINE is set."
        case LocalEntryNotFoundError():
            return f"{repo} is not in the hub's cache, and the hub cannot be reached: try again."
        case EntryNotFoundError():
            return f"{repo} lacks a file that is needed: it holds no model in diffusers' layout."
        case OSError(strerror=str(reason)):
            return f"{repo} could not be downloaded from the hub: {reason}."
        case _:
            return f"{repo} could not be downloaded from the hub ({type(error).__name__}): try again."


def published_hash(path: Path) -> str | None:
    """Returns the hash by which the hub's cache names a file: SHA-256, or git's SHA-1 for a small file.

    Returns None for a file outside the cache.
    """
    blob = path.resolve()
    is_hash = blob.parent.name == "blobs" and (SHA256.fullmatch(blob.name) or GIT_SHA1.fullmatch(blob.name))
    return blob.name if is_hash else None


def content_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file. Does not read a large file in the hub's cache, whose name is its hash."""
    published = published_hash(path)
    if published and SHA256.fullmatch(published):
        return published
    return file_sha256(path)


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of what a file holds now, whatever its name says."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_as_published(path: Path) -> bool | None:
    """Whether a file's content has the hash that the hub published; None if no hash is known. Reads the whole file."""
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
    """Deletes files from the hub's cache and returns the bytes that this freed.

    Also deletes the cached repositories of these files when they hold no weights any more.
    """
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
    """Whether a file is in the hub's cache, where Keyreel may delete it."""
    return path.absolute().is_relative_to(Path(constants.HF_HUB_CACHE).absolute())


def _cached_sizes(repo: str) -> dict[str, int]:
    for cached in scan_cache_dir(constants.HF_HUB_CACHE).repos:
        main = cached.refs.get("main") if cached.repo_type == "model" else None
        if cached.repo_id == repo and main is not None:
            return {file.file_path.relative_to(main.snapshot_path).as_posix(): file.size_on_disk for file in main.files}
    raise LocalEntryNotFoundError(repo)


def _remove(path: Path) -> int:
    """Removes a file from its snapshot, and its content when no other snapshot uses it. Returns the bytes freed."""
    blob = path.resolve()
    if blob == path.absolute():  # without symbolic links, the snapshot holds the content itself
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
    """Returns `models--owner--name` for a file in `models--owner--name/snapshots/commit/...`."""
    parents = path.absolute().parents
    return next(parent.parent for parent in parents if parent.name == "snapshots")
