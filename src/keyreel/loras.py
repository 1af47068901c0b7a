"""Which file a request's LoRA means: a URL, a hub repository, or a local path."""

import asyncio
import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, constants, is_offline_mode, scan_cache_dir
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    CacheNotFound,
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    HTTPError,  # of httpx or httpx2, whichever this version of the hub is built on
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from keyreel.errors import Loc, RequestError
from keyreel.fetch import Fetched, Fetcher
from keyreel.lora_keys import first_names
from keyreel.schema import LoRA

HUB_TIMEOUT = 10.0  # seconds for the list of a repository's files
DEFAULT_NAME = "pytorch_lora_weights.safetensors"
COMFY = re.compile(r"_comfy\.safetensors$|(?:^|/)comfyui_[^/]*$", re.IGNORECASE)
REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*(?<!\.safetensors)", re.ASCII)
URL = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)  # two letters at least: C: is a drive
HUB_PAGE = re.compile(r"(https://(?:huggingface\.co|hf\.co)/[^/]+/[^/]+)/blob/")
SHA256 = re.compile(r"[0-9a-f]{64}")
# No OSError of the disk: that is this machine's fault, not the request's.
HUB_ERRORS = (CacheNotFound, EntryNotFoundError, HFValidationError, HTTPError, OfflineModeIsEnabled)


async def find_lora(lora: LoRA, fetcher: Fetcher, *, max_bytes: int, loc: Loc, hub: HfApi | None = None) -> Fetched:
    """The file that `lora` means. `loc`: where the request names it, as in `("loras", 0, "path")`.

    A URL or data URI is fetched; otherwise a local file or folder (if this fetcher may open any) comes before
    a hub repository of the same name. The file is not looked into: see `keyreel.lora_keys.check_lora`.
    """
    if URL.match(lora.path):
        source = file_url(lora.path)
    elif local := _local_path(lora.path, fetcher.local_base):
        source = str(_local_file(local, lora.weight_name, loc))
    elif REPOSITORY.fullmatch(lora.path):
        return await asyncio.to_thread(_from_hub, lora, hub or HfApi(), max_bytes, loc)
    else:
        local_too = "" if fetcher.local_base is None else ", an existing file or folder"
        message = f"{lora.path!r} is no URL, data URI{local_too} or hub repository (owner/name)."
        raise RequestError.at(loc, message, "file_download_error")
    return await fetcher.fetch(source, max_bytes=max_bytes, loc=loc)


async def lora_names(repository: str, loc: Loc, hub: HfApi | None = None) -> list[str]:
    """The safetensors files of a hub repository, those first that a request without a name could mean."""
    try:
        sizes = await asyncio.to_thread(_sizes, repository, hub or HfApi())
    except HUB_ERRORS as error:
        raise RequestError.at(loc, _hub_failure(repository, error), "file_download_error") from error
    names = (name for name in sizes if name.endswith(".safetensors"))
    return sorted(names, key=lambda name: (COMFY.search(name) is not None, name != DEFAULT_NAME, name))


def file_url(url: str) -> str:
    """The file itself, where `url` is the hub's page about it."""
    return HUB_PAGE.sub(r"\1/resolve/", url)


def choose_file(names: Iterable[str], weight_name: str | None, *, loc: Loc, source: str) -> str:
    """The LoRA among the files of a repository or folder. Raises RequestError listing the choices."""
    files = sorted(name for name in names if name.endswith(".safetensors"))
    if not files:
        raise RequestError.at(loc, f"{source} holds no .safetensors file.", "file_download_error")
    if weight_name is not None:
        return _named_file(weight_name, files, loc, source)
    # ComfyUI duplicates hold the same weights under other keys.
    plain = [name for name in files if not COMFY.search(name)] or files
    if len(plain) == 1:
        return plain[0]
    if DEFAULT_NAME in plain:
        return DEFAULT_NAME
    message = f"{source} holds several LoRAs: set weight_name to one of {first_names(files, 20)}."
    raise RequestError.at((*loc[:-1], "weight_name"), message, "one_of", expected=files)


def _named_file(weight_name: str, files: Sequence[str], loc: Loc, source: str) -> str:
    if weight_name in files:
        return weight_name
    message = f"{source} holds no safetensors file {weight_name!r}; it holds {first_names(files, 20)}."
    raise RequestError.at((*loc[:-1], "weight_name"), message, "one_of", expected=files)


def _local_path(path: str, base: Path | None) -> Path | None:
    """What `path` is on this machine, if anything and if local files are open at all. Absolute."""
    if base is None or not path:
        return None
    try:
        return (base / path).absolute() if (base / path).exists() else None
    except OSError:  # such as a name that is too long
        return None


def _local_file(path: Path, weight_name: str | None, loc: Loc) -> Path:
    if not path.is_dir():
        return path
    names = [file.relative_to(path).as_posix() for file in path.rglob("*.safetensors")]
    return path / choose_file(names, weight_name, loc=loc, source=str(path))


def _from_hub(lora: LoRA, hub: HfApi, max_bytes: int, loc: Loc) -> Fetched:
    try:
        sizes = _sizes(lora.path, hub)
        name = choose_file(sizes, lora.weight_name, loc=loc, source=lora.path)
        if sizes[name] > max_bytes:
            message = f"{name} of {lora.path} has {sizes[name]} bytes; the limit is {max_bytes}."
            raise RequestError.at(loc, message, "file_too_large", max_size=max_bytes)
        path = Path(hub.hf_hub_download(lora.path, name))
    except HUB_ERRORS as error:
        message = _hub_failure(lora.path, error)
        raise RequestError.at(loc, message, "file_download_error") from error
    return Fetched(path=path, sha256=_sha256(path), name=PurePosixPath(name).name, content_type=None)


def _sizes(repository: str, hub: HfApi) -> dict[str, int]:
    return _cached_sizes(repository) if is_offline_mode() else _hub_sizes(repository, hub)


def _hub_sizes(repository: str, hub: HfApi) -> dict[str, int]:
    info = hub.model_info(repository, files_metadata=True, timeout=HUB_TIMEOUT)
    return {file.rfilename: file.size or 0 for file in info.siblings or ()}


def _cached_sizes(repository: str) -> dict[str, int]:
    """Like `_hub_sizes`, of the files that earlier downloads left behind."""
    for cached in scan_cache_dir(constants.HF_HUB_CACHE).repos:
        main = cached.refs.get("main") if cached.repo_type == "model" else None
        if cached.repo_id == repository and main is not None:
            return {file.file_path.relative_to(main.snapshot_path).as_posix(): file.size_on_disk for file in main.files}
    raise LocalEntryNotFoundError(repository)


def _hub_failure(repository: str, error: Exception) -> str:
    match error:
        case GatedRepoError():
            return f"{repository} is gated: accept its terms on the hub and set HF_TOKEN to your token."
        case RepositoryNotFoundError():
            return f"{repository} is not on the hub, or private: check the name, or set HF_TOKEN."
        case HFValidationError():
            return f"{repository!r} is not a possible name of a hub repository."
        case _ if is_offline_mode():
            return f"{repository} is not in the hub's cache, and HF_HUB_OFFLINE forbids to download it."
        case _:
            return f"{repository} could not be downloaded from the hub ({type(error).__name__}): try again."


def _sha256(path: Path) -> str:
    """The hub's cache names a large file by its hash, where there are links; the others are hashed here."""
    blob = path.resolve().name
    if SHA256.fullmatch(blob):
        return blob
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
