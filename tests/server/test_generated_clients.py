"""Clients that are generated from the OpenAPI documents compile and make a video.

The programs in clients/generated do it twice, once with the document of an endpoint and once with the server's own.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.cache import cached
from tests.js import JS, environment, install_packages
from tests.server.live import ENDPOINT, VIDEO, LiveServer

SOURCE = JS.parent / "generated"
DOCUMENTS = {"queue": f"/api/openapi/queue/openapi.json?endpoint_id={ENDPOINT}", "own": "/openapi.json"}
PRINTED = ["Denoising, step 1 of 2; Decoding", VIDEO["url"], VIDEO["url"]]

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(server: LiveServer, tmp_path: Path) -> Path:
    """A folder with the programs and the documents."""
    folder = tmp_path / "generated"
    shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns("node_modules"))
    for name, path in DOCUMENTS.items():
        (folder / f"{name}.json").write_text(httpx.get(server.url + path, trust_env=False).text)
    return folder


def run(folder: Path, *command: str | Path) -> str:
    """Runs a command that must succeed. Returns what it prints."""
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_typescript_clients(server: LiveServer, folder: Path) -> None:
    """openapi-typescript and Hey API."""
    packages = install_packages("generated") / "node_modules"
    (folder / "node_modules").symlink_to(packages)
    run(folder, "node", "generate.mjs")
    run(folder, "node", packages / "typescript" / "bin" / "tsc", "--project", ".")
    for program in ("openapi-typescript.js", "hey-api.js"):
        printed = run(folder, "node", f"built/{program}", server.url, server.credentials)
        assert printed.splitlines() == PRINTED, program


def install_generator(folder: Path) -> None:
    """Its dependencies disagree with ours, so it has an environment of its own."""
    empty = ("venv", "--quiet", "--allow-existing", "--relocatable", "--python", sys.executable, ".")
    packages = ("pip", "install", "--quiet", "--python", "bin/python", "--requirement", SOURCE / "requirements.txt")
    for arguments in (empty, packages):
        subprocess.run([sys.executable, "-m", "uv", *arguments], cwd=folder, check=True, timeout=300)


def test_python_clients(server: LiveServer, folder: Path) -> None:
    """openapi-python-client."""
    name = f"generator-{sys.version_info.major}.{sys.version_info.minor}"
    generator = cached(name, SOURCE / "requirements.txt", install_generator) / "bin" / "openapi-python-client"
    for document in DOCUMENTS:
        options = ("--config", "openapi-python-client.yaml", "--meta", "none", "--fail-on-warning")
        run(
            folder, generator, "generate", "--path", f"{document}.json", "--output-path", f"{document}_client", *options
        )
    run(folder, sys.executable, "-m", "mypy", "--strict", "video.py")
    printed = run(folder, sys.executable, "video.py", server.url, server.credentials)
    assert printed.splitlines() == PRINTED
