"""Finds the file of a request's LoRA: at a URL, in a hub repository or at a local path."""

import asyncio
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, is_offline_mode, try_to_load_from_cache

from keyreel.checkpoints import hub
from keyreel.checkpoints.bundled import PREFIX, bundled_loras
from keyreel.checkpoints.lora_keys import first_names
from keyreel.errors import Loc, RequestError
from keyreel.fal.schema import LoRA
from keyreel.inputs.fetch import Fetcher
from keyreel.video.job import InputFile

DEFAULT_NAME = "pytorch_lora_weights.safetensors"
COMFY = re.compile(r"_comfy\.safetensors$|(?:^|/)comfyui_[^/]*$", re.IGNORECASE)
URL = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)  # at least two letters, because C: is a drive
HUB_PAGE = re.compile(r"(https://(?:huggingface\.co|hf\.co)/[^/]+/[^/]+)/blob/")


async def find_lora(lora: LoRA, fetcher: Fetcher, *, max_bytes: int, loc: Loc, api: HfApi | None = None) -> InputFile:
    """Returns the file of a LoRA. loc: its location in the request, such as `("loras", 0, "path")`.

    Takes a LoRA that ships with Keyreel from there, and fetches a URL or data URI. Otherwise a local file or folder, if
    the fetcher allows them, takes precedence over a hub repository of the same name. Does not read the content;
    `keyreel.checkpoints.lora_keys.check_lora` does. api: the hub, by default without a token. Raises RequestError.
    """
    if lora.path.startswith(PREFIX):
        return await asyncio.to_thread(_shipped, lora.path, loc)
    if URL.match(lora.path):
        source = file_url(lora.path)
    elif local := _local_path(lora.path, fetcher.local_base):
        source = str(_local_file(local, lora.weight_name, loc))
    elif hub.REPOSITORY.fullmatch(lora.path):
        return await asyncio.to_thread(_from_hub, lora, fetcher, api or hub_api(), max_bytes, loc)
    else:
        or_local = "" if fetcher.local_base is None else ", existing file or folder,"
        message = f"{lora.path!r} is not a URL, data URI{or_local} or hub repository (owner/name)."
        raise RequestError.at(loc, message, "file_download_error")
    return await fetcher.fetch(source, max_bytes=max_bytes, loc=loc, is_lora=True)


def hub_api(*, own_token: bool = False) -> HfApi:
    """Returns the hub's API. own_token: whether private repositories of whoever runs this process are opened."""
    return HfApi(token=None if own_token else False)


async def lora_names(repository: str, loc: Loc, api: HfApi | None = None) -> list[str]:
    """Lists the safetensors files of a hub repository, the most likely default first. Raises RequestError."""
    api = api or hub_api()
    try:
        sizes = await asyncio.to_thread(hub.file_sizes, repository, api)
    except hub.HUB_ERRORS as error:
        raise _hub_error(repository, error, api, loc) from error
    names = (name for name in sizes if name.endswith(".safetensors"))
    return sorted(names, key=lambda name: (COMFY.search(name) is not None, name != DEFAULT_NAME, name))


def file_url(url: str) -> str:
    """Returns the URL of the file itself if `url` is the hub's page about it, or else `url`."""
    return HUB_PAGE.sub(r"\1/resolve/", url)


def choose_file(names: Iterable[str], weight_name: str | None, *, loc: Loc, source: str) -> str:
    """Returns the name of the LoRA file in a repository or folder. Raises RequestError listing the choices."""
    files = sorted(name for name in names if name.endswith(".safetensors"))
    if not files:
        raise RequestError.at(loc, f"{source} contains no .safetensors file.", "file_download_error")
    if weight_name is not None:
        return _named_file(weight_name, files, loc, source)
    # Files for ComfyUI hold the same weights under other keys.
    plain = [name for name in files if not COMFY.search(name)] or files
    if len(plain) == 1:
        return plain[0]
    if DEFAULT_NAME in plain:
        return DEFAULT_NAME
    message = f"{source} contains several LoRAs: set weight_name to one of {first_names(files, 20)}."
    raise RequestError.at((*loc[:-1], "weight_name"), message, "one_of", expected=files)


def _named_file(weight_name: str, files: Sequence[str], loc: Loc, source: str) -> str:
    if weight_name in files:
        return weight_name
    message = f"{source} contains no file {weight_name!r}. Its safetensors files: {first_names(files, 20)}."
    raise RequestError.at((*loc[:-1], "weight_name"), message, "one_of", expected=files)


def _shipped(path: str, loc: Loc) -> InputFile:
    shipped = bundled_loras()
    if path not in shipped:
        message = f"There is no LoRA {path!r}: this installation has {', '.join(shipped) or 'none'}."
        raise RequestError.at(loc, message, "one_of", expected=list(shipped))
    return InputFile(shipped[path], hub.content_sha256(shipped[path]), shipped[path].name)


def _local_path(path: str, base: Path | None) -> Path | None:
    """Returns the absolute path if local files are allowed and it exists."""
    if base is None or not path:
        return None
    try:
        return (base / path).absolute() if (base / path).exists() else None
    except OSError:  # for example, the name is too long
        return None


def _local_file(path: Path, weight_name: str | None, loc: Loc) -> Path:
    if not path.is_dir():
        return path
    names = [file.relative_to(path).as_posix() for file in path.rglob("*.safetensors")]
    return path / choose_file(names, weight_name, loc=loc, source=str(path))


def _from_hub(lora: LoRA, fetcher: Fetcher, api: HfApi, max_bytes: int, loc: Loc) -> InputFile:
    try:
        sizes = hub.file_sizes(lora.path, api)
        name = choose_file(sizes, lora.weight_name, loc=loc, source=lora.path)
        if sizes[name] > max_bytes:
            message = f"{name} of {lora.path} has {sizes[name]} bytes; the limit is {max_bytes}."
            raise RequestError.at(loc, message, "file_too_large", max_size=max_bytes)
        path, sha256 = _download(lora.path, name, fetcher, api)
    except hub.HUB_ERRORS as error:
        raise _hub_error(lora.path, error, api, loc) from error
    return InputFile(path, sha256, PurePosixPath(name).name)


def _download(repository: str, name: str, fetcher: Fetcher, api: HfApi) -> tuple[Path, str]:
    """Returns a file of a repository and its SHA-256.

    It is downloaded to the fetcher's LoRAs, unless the operator has it in the hub's cache.
    """
    loras = fetcher.loras
    if loras is None or is_offline_mode() or isinstance(try_to_load_from_cache(repository, name), str):
        path = Path(api.hf_hub_download(repository, name))
        return path, hub.content_sha256(path)
    path = Path(api.hf_hub_download(repository, name, cache_dir=loras.hub))
    if hub.is_as_published(path) is False:
        path.resolve().unlink()
        path = Path(api.hf_hub_download(repository, name, cache_dir=loras.hub))
    sha256 = hub.content_sha256(path)
    return fetcher.lend(path, loras), sha256


def _hub_error(repository: str, error: Exception, api: HfApi, loc: Loc) -> RequestError:
    reason = hub.translate_error(repository, error)
    if api.token is False and isinstance(error, hub.CLOSED_ERRORS):
        state = "gated" if isinstance(error, hub.GATED_ERRORS) else "not on the hub, or private"
        reason = (
            f"{repository} is {state}, and this server fetches LoRAs without a token of the hub. Check the name, give "
            "a link to the file, or ask the operator to set KEYREEL_HUB_TOKEN_FOR_LORAS."
        )
    return RequestError.at(loc, reason, "file_download_error")
