"""The programs in docs/clients.md run as they are printed there, with the address and the key of a test server."""

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.cache import cached
from tests.js import JS, environment, install, install_packages
from tests.server.live import VIDEO, LiveServer

TEXT = (Path(__file__).parents[2] / "docs" / "clients.md").read_text()
NEEDS_OTHERS = ("@fal-ai/server-proxy", "@tanstack/ai")
OLDER = Path(__file__).with_name("older_clients.txt")


def programs(language: str) -> list[str]:
    """Returns the page's code blocks in a language."""
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def headings() -> list[str]:
    """Returns the headings of the programs in JavaScript."""
    return [section.partition("\n")[0].strip("`") for section in TEXT.split("\n### ")[1:] if "```js\n" in section]


def adapted(program: str, server: LiveServer) -> str:
    return program.replace("http://127.0.0.1:8000", server.url).replace("id:secret", server.credentials)


def run_in_node(folder: Path, packages: Path, program: str) -> list[str]:
    """Runs a program that finds the packages in a folder. Returns the words that it prints."""
    (folder / "node_modules").symlink_to(packages)
    (folder / "app.mjs").write_text(program)
    command = ["node", "app.mjs"]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.slow
@pytest.mark.parametrize("program", programs("js"), ids=headings())
def test_javascript_programs(server: LiveServer, tmp_path: Path, program: str) -> None:
    if any(package in program for package in NEEDS_OTHERS):
        packages = install_packages("others") / "node_modules"
    else:
        install()
        packages = JS / "node_modules"
    assert run_in_node(tmp_path, packages, adapted(program, server)) == [server.worker.leases[-1].id, VIDEO["url"]]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["requestMiddleware", "fetch"])
@pytest.mark.parametrize("version", ["1.0", "1.9"])
def test_older_javascript_clients(server: LiveServer, tmp_path: Path, version: str, way: str) -> None:
    program = dict(zip(headings(), programs("js"), strict=True))[way].replace("@fal-ai/client", f"client-{version}")
    program += 'console.log(await fal.storage.upload(new File(["a clip"], "clip.mp4", { type: "video/mp4" })));'
    printed = run_in_node(tmp_path, install_packages("others") / "node_modules", adapted(program, server))
    assert printed[:2] == [server.worker.leases[-1].id, VIDEO["url"]]
    assert httpx.get(printed[2], trust_env=False).content == b"a clip"


@pytest.mark.slow
def test_the_python_program(server: LiveServer) -> None:
    run_in_python(sys.executable, server)


@pytest.mark.slow
def test_an_older_python_client(server: LiveServer) -> None:
    run_in_python(older_python(), server)


def run_in_python(python: str | Path, server: LiveServer) -> None:
    (program,) = programs("python")
    command = [python, "-c", adapted(program, server)]
    variables = environment(NO_PROXY="127.0.0.1")
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == VIDEO["url"]
    (image,) = server.worker.leases[-1].input["images"]
    assert httpx.get(image["image_url"], trust_env=False).content == b"..."


def older_python() -> Path:
    """Returns a Python with the oldest `fal_client` that has the constants."""

    def install_into(folder: Path) -> None:
        uv = [sys.executable, "-m", "uv"]
        empty = [*uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, "."]
        packages = [*uv, "pip", "install", "--quiet", "--python", "bin/python", "--requirement", str(OLDER)]
        for command in (empty, packages):
            subprocess.run(command, cwd=folder, check=True, timeout=300)

    name = f"older-{sys.version_info.major}.{sys.version_info.minor}"
    return cached(name, OLDER, install_into) / "bin" / "python"


def test_the_curl_command(server: LiveServer) -> None:
    program = next(program for program in programs("sh") if program.startswith("curl"))
    done = subprocess.run(["sh", "-c", adapted(program, server)], capture_output=True, text=True)
    assert str(VIDEO["url"]) in done.stdout
