"""LoRAs from a small local hub, from URLs and from local files."""

import hashlib
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from huggingface_hub import HfApi, close_session, constants

from keyreel.checkpoints.catalogue import DEMO
from keyreel.errors import Problem, RequestError
from keyreel.fal.schema import LoRA
from keyreel.inputs.fetch import Fetcher
from keyreel.inputs.loras import choose_file, file_url, find_lora, hub_api, lora_names
from keyreel.net.addresses import AddressPolicy
from keyreel.video.job import InputFile

LOC = ("loras", 0, "path")
WEIGHTS = b"weights " * 1000
COMMIT = "c0ffee" + 34 * "0"
ANYWHERE = AddressPolicy.everything()


@dataclass
class Hub:
    """A small hub. Repositories below `private/` and `gated/` need a token that no test has.

    tokens: the tokens that were sent.
    """

    repositories: dict[str, dict[str, bytes]]
    endpoint: str = ""
    downloads: list[str] = field(default_factory=list)
    gated: set[str] = field(default_factory=lambda: {"gated/style"})
    tokens: set[str | None] = field(default_factory=set)

    @property
    def api(self) -> HfApi:
        return HfApi(self.endpoint, token=False)

    async def info(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        self.tokens.add(request.headers.get("Authorization"))
        if name not in self.repositories or name.startswith("private/"):
            return web.json_response(status=401, headers={"X-Error-Code": "RepoNotFound"})
        files = self.repositories[name].items()
        siblings = [{"rfilename": file, "size": len(data), "lfs": _lfs(file, data)} for file, data in files]
        gated = "auto" if name in self.gated else False
        return web.json_response({"id": name, "sha": COMMIT, "gated": gated, "siblings": siblings})

    async def file(self, request: web.Request) -> web.Response:
        name, file = request.match_info["name"], request.match_info["file"]
        if name in self.gated:
            return web.Response(status=403, headers={"X-Error-Code": "GatedRepo"})
        data = self.repositories[name][file]
        lfs = _lfs(file, data)
        etag = hashlib.sha1(data, usedforsecurity=False).hexdigest() if lfs is None else lfs["sha256"]
        if request.method == "GET":
            self.downloads.append(file)
        return web.Response(body=data, headers={"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})


def _lfs(file: str, data: bytes) -> dict[str, object] | None:
    """Returns the LFS entry of a file. Like the hub, identifies small files by git's SHA-1 instead."""
    if file.startswith("small"):
        return None
    return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}


@pytest.fixture
async def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hub]:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    hub = Hub({})
    app = web.Application()
    app.router.add_get("/api/models/{name:[^/]+/[^/]+}", hub.info)
    app.router.add_get("/{name:[^/]+/[^/]+}/resolve/main/{file:.+}", hub.file)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    hub.endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield hub
    close_session()
    await runner.cleanup()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The working folder of the command line."""
    path = tmp_path / "here"
    path.mkdir()
    return path


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Fetcher]:
    """The server's fetcher, which refuses local files."""
    async with Fetcher(tmp_path / "cache", ANYWHERE, 10) as fetcher:
        yield fetcher


@pytest.fixture
async def command_line(tmp_path: Path, folder: Path) -> AsyncIterator[Fetcher]:
    async with Fetcher(tmp_path / "cache", ANYWHERE, 10, local_base=folder) as fetcher:
        yield fetcher


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    yield
    close_session()


async def find(lora: LoRA, fetcher: Fetcher, hub: Hub, max_bytes: int = 10**6) -> InputFile:
    return await find_lora(lora, fetcher, max_bytes=max_bytes, loc=LOC, api=hub.api)


async def find_problem(lora: LoRA, fetcher: Fetcher, hub: Hub, max_bytes: int = 10**6) -> Problem:
    with pytest.raises(RequestError) as caught:
        await find(lora, fetcher, hub, max_bytes)
    (problem,) = caught.value.problems
    return problem


class TestChoice:
    @pytest.mark.parametrize(
        ("names", "weight_name", "chosen"),
        [
            (["README.md", "style.safetensors", "style.bin"], None, "style.safetensors"),
            (["a.safetensors", "b.safetensors"], "b.safetensors", "b.safetensors"),
            (["v1/a.safetensors", "v2/a.safetensors"], "v2/a.safetensors", "v2/a.safetensors"),
            (["a.safetensors", "pytorch_lora_weights.safetensors"], None, "pytorch_lora_weights.safetensors"),
            (["style.safetensors", "style_comfy.safetensors"], None, "style.safetensors"),
            (["style.safetensors", "ComfyUI_style.safetensors"], None, "style.safetensors"),
            (["style.safetensors", "comfy/comfyui_style.safetensors"], None, "style.safetensors"),
            (["style_comfy.safetensors"], None, "style_comfy.safetensors"),
        ],
    )
    def test_file_is_chosen_by_name(self, names: list[str], weight_name: str | None, chosen: str) -> None:
        assert choose_file(names, weight_name, loc=LOC, source="ann/style") == chosen

    @pytest.mark.parametrize("names", [[], ["pytorch_lora_weights.bin"]])
    def test_repository_without_safetensors_files_is_an_error(self, names: list[str]) -> None:
        with pytest.raises(RequestError, match=re.escape("loras.0.path: ann/style contains no .safetensors file.")):
            choose_file(names, None, loc=LOC, source="ann/style")

    @pytest.mark.parametrize("weight_name", [None, "c.safetensors", "../a.safetensors", "a"])
    def test_ambiguous_choice_lists_the_files(self, weight_name: str | None) -> None:
        with pytest.raises(RequestError) as caught:
            choose_file(["b.safetensors", "a.safetensors"], weight_name, loc=LOC, source="ann/style")
        (problem,) = caught.value.problems
        assert problem.loc == ("loras", 0, "weight_name")
        assert problem.type == "one_of"
        assert problem.context == {"expected": ["a.safetensors", "b.safetensors"]}
        assert "a.safetensors, b.safetensors" in problem.message


async def test_a_lora_that_ships_with_keyreel_has_a_name(server: Fetcher, hub: Hub) -> None:
    """On a server, too, where no other path is allowed."""
    found = await find(LoRA(path="keyreel:neon"), server, hub)
    assert (found.name, found.path) == ("neon.safetensors", DEMO / "loras" / "neon.safetensors")
    assert found.sha256 == hashlib.sha256(found.path.read_bytes()).hexdigest()
    for path in ("keyreel:../../etc/passwd", "keyreel:"):
        problem = await find_problem(LoRA(path=path), server, hub)
        assert problem.type == "one_of"
        assert problem.message.endswith("this installation has keyreel:heart, keyreel:ink, keyreel:neon.")


class TestHub:
    @pytest.mark.parametrize("name", ["style.safetensors", "small.safetensors"])
    async def test_downloads_once(self, name: str, server: Fetcher, hub: Hub) -> None:
        hub.repositories["ann/style"] = {"README.md": b"#", name: WEIGHTS}
        for _ in range(2):
            found = await find(LoRA(path="ann/style"), server, hub)
        assert found.path.read_bytes() == WEIGHTS
        assert found.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
        assert found.name == name
        assert hub.downloads == [name]

    async def test_weight_name_selects_a_file(self, server: Fetcher, hub: Hub) -> None:
        hub.repositories["ann/styles"] = {"a.safetensors": b"a", "old/b.safetensors": WEIGHTS}
        found = await find(LoRA(path="ann/styles", weight_name="old/b.safetensors"), server, hub)
        assert (found.name, found.path.read_bytes()) == ("b.safetensors", WEIGHTS)

    async def test_too_large_file_is_not_downloaded(self, server: Fetcher, hub: Hub) -> None:
        hub.repositories["ann/style"] = {"style.safetensors": WEIGHTS}
        problem = await find_problem(LoRA(path="ann/style"), server, hub, max_bytes=len(WEIGHTS) - 1)
        assert (problem.type, problem.context) == ("file_too_large", {"max_size": len(WEIGHTS) - 1})
        assert hub.downloads == []

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("ann/missing", "ann/missing is not on the hub, or private, and this server fetches LoRAs without a token"),
            ("private/style", "private/style is not on the hub, or private"),
            ("gated/style", "gated/style is gated"),
            ("ann/a--b", "'ann/a--b' is not a valid name of a hub repository."),
        ],
    )
    async def test_inaccessible_repository_is_explained(
        self, path: str, message: str, server: Fetcher, hub: Hub
    ) -> None:
        hub.repositories |= {name: {"style.safetensors": WEIGHTS} for name in ("private/style", "gated/style")}
        problem = await find_problem(LoRA(path=path), server, hub)
        assert (problem.loc, problem.type) == (LOC, "file_download_error")
        assert message in problem.message
        assert "\n" not in problem.message

    async def test_gated_files_that_the_operator_uses_are_not_taken_from_the_cache(
        self, server: Fetcher, hub: Hub
    ) -> None:
        hub.repositories["ann/style"] = {"style.safetensors": WEIGHTS}
        await find(LoRA(path="ann/style"), server, hub)
        hub.gated.add("ann/style")
        problem = await find_problem(LoRA(path="ann/style"), server, hub)
        assert "KEYREEL_HUB_TOKEN_FOR_LORAS" in problem.message

    async def test_own_token_is_not_used_unless_asked_for(self, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_TOKEN", "hf_operator")
        hub.repositories["ann/style"] = {"style.safetensors": WEIGHTS}
        await lora_names("ann/style", LOC)
        assert hub.tokens == {None}
        await lora_names("ann/style", LOC, hub_api(own_token=True))
        assert hub.tokens == {None, "Bearer hf_operator"}

    async def test_unreachable_hub_is_reported(self, server: Fetcher, hub: Hub) -> None:
        hub.endpoint = "http://127.0.0.1:1"
        problem = await find_problem(LoRA(path="ann/style"), server, hub)
        assert problem.message == "ann/style could not be downloaded from the hub (ConnectError): try again."

    async def test_offline_mode_uses_the_cache(
        self, server: Fetcher, hub: Hub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub.repositories["ann/style"] = {"style.safetensors": WEIGHTS}
        online = await find(LoRA(path="ann/style"), server, hub)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert await find(LoRA(path="ann/style"), server, hub) == online
        problem = await find_problem(LoRA(path="ann/other"), server, hub)
        assert problem.message == "ann/other is not in the hub's cache, and HF_HUB_OFFLINE is set."

    @pytest.mark.usefixtures("offline")
    async def test_offline_mode_with_an_empty_cache_is_an_error(self, server: Fetcher, hub: Hub) -> None:
        assert "not in the hub's cache" in (await find_problem(LoRA(path="ann/style"), server, hub)).message


class TestOtherSources:
    @pytest.mark.parametrize(
        ("url", "file"),
        [
            (
                "https://huggingface.co/ann/style/blob/main/v1/a.safetensors",
                "https://huggingface.co/ann/style/resolve/main/v1/a.safetensors",
            ),
            ("https://example.com/ann/style/blob/a.safetensors", "https://example.com/ann/style/blob/a.safetensors"),
        ],
    )
    def test_page_of_a_file_becomes_its_download_url(self, url: str, file: str) -> None:
        assert file_url(url) == file

    async def test_url_is_downloaded(self, server: Fetcher, hub: Hub) -> None:
        hub.repositories["ann/style"] = {"style.safetensors": WEIGHTS}
        url = f"{hub.endpoint}/ann/style/resolve/main/style.safetensors"
        found = await find(LoRA(path=url), server, hub)
        assert found.path.read_bytes() == WEIGHTS
        assert found.sha256 == hashlib.sha256(WEIGHTS).hexdigest()

    async def test_data_uri_is_decoded(self, server: Fetcher, hub: Hub) -> None:
        found = await find(LoRA(path="data:application/octet-stream;base64,d2VpZ2h0cw=="), server, hub)
        assert found.path.read_bytes() == b"weights"

    @pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://localhost/style.safetensors"])
    async def test_other_url_schemes_are_refused(self, url: str, server: Fetcher, hub: Hub) -> None:
        assert (await find_problem(LoRA(path=url), server, hub)).type == "file_download_error"

    async def test_local_file_is_found(self, command_line: Fetcher, folder: Path, hub: Hub) -> None:
        (folder / "style.safetensors").write_bytes(WEIGHTS)
        for path in ("style.safetensors", str(folder / "style.safetensors")):
            assert (await find(LoRA(path=path), command_line, hub)).path.read_bytes() == WEIGHTS

    async def test_local_base_may_be_relative(
        self, tmp_path: Path, folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folder / "style.safetensors").write_bytes(WEIGHTS)
        monkeypatch.chdir(tmp_path)
        async with Fetcher(tmp_path / "cache", ANYWHERE, 10, local_base=Path(folder.name)) as fetcher:
            assert (await find(LoRA(path="style.safetensors"), fetcher, hub)).path.read_bytes() == WEIGHTS

    async def test_weight_name_selects_a_file_of_a_local_folder(
        self, command_line: Fetcher, folder: Path, hub: Hub
    ) -> None:
        (folder / "runs" / "one").mkdir(parents=True)
        (folder / "runs" / "one" / "a.safetensors").write_bytes(WEIGHTS)
        (folder / "runs" / "b.safetensors").write_bytes(b"b")
        found = await find(LoRA(path="runs", weight_name="one/a.safetensors"), command_line, hub)
        assert found.path.read_bytes() == WEIGHTS
        problem = await find_problem(LoRA(path="runs"), command_line, hub)
        assert problem.context == {"expected": ["b.safetensors", "one/a.safetensors"]}

    async def test_local_folder_precedes_the_hub_where_local_files_are_allowed(
        self, command_line: Fetcher, server: Fetcher, folder: Path, hub: Hub
    ) -> None:
        hub.repositories["ann/style"] = {"style.safetensors": b"of the hub"}
        assert (await find(LoRA(path="ann/style"), command_line, hub)).path.read_bytes() == b"of the hub"
        (folder / "ann" / "style").mkdir(parents=True)
        (folder / "ann" / "style" / "style.safetensors").write_bytes(b"local")
        assert (await find(LoRA(path="ann/style"), command_line, hub)).path.read_bytes() == b"local"
        assert (await find(LoRA(path="ann/style"), server, hub)).path.read_bytes() == b"of the hub"

    @pytest.mark.parametrize("path", ["", "style", "/etc/passwd", "a/b/c", "my/style.safetensors", "../x", "a\0b"])
    async def test_invalid_path_is_refused(self, path: str, server: Fetcher, hub: Hub) -> None:
        problem = await find_problem(LoRA(path=path), server, hub)
        assert problem.message == f"{path!r} is not a URL, data URI or hub repository (owner/name)."

    @pytest.mark.parametrize("path", ["", "style", "my/style.safetensors", "x" * 1000, "a\0b"])
    async def test_missing_local_file_is_refused(self, path: str, command_line: Fetcher, hub: Hub) -> None:
        problem = await find_problem(LoRA(path=path), command_line, hub)
        assert "is not a URL, data URI, existing file or folder, or hub repository" in problem.message


async def test_lora_names_puts_preferred_files_first(hub: Hub) -> None:
    names = ("z.safetensors", "a_comfy.safetensors", "pytorch_lora_weights.safetensors", "b/c.safetensors", "README.md")
    hub.repositories["studio/styles"] = dict.fromkeys(names, WEIGHTS)
    assert await lora_names("studio/styles", LOC, hub.api) == [
        "pytorch_lora_weights.safetensors",
        "b/c.safetensors",
        "z.safetensors",
        "a_comfy.safetensors",
    ]
    with pytest.raises(RequestError, match="not on the hub"):
        await lora_names("nobody/nothing", LOC, hub.api)
