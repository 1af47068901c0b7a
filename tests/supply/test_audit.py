"""`make audit` with services of our own in place of OSV and npm's registry."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from supply.advisories import Advisory, UnreachableError, npm_advisories, python_advisories
from supply.audit import FINDINGS, UNREACHABLE, report, report_licences
from supply.licences import Licence

OSV_FINDING = {
    "id": "GHSA-aaaa-bbbb-cccc",
    "summary": "It breaks.",
    "published": "2026-01-01T00:00:00Z",
    "affected": [
        {
            "package": {"name": "idna", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "9.9"}]}],
        }
    ],
}
NPM_FINDING = {
    "id": 1,
    "url": "https://github.com/advisories/GHSA-dddd-eeee-ffff",
    "title": "It breaks.",
    "severity": "high",
    "vulnerable_versions": "<2",
}
DRAWN = Console(file=StringIO(), width=200)

pytestmark = pytest.mark.slow


@contextmanager
def service(answer: Callable[[Any], object] | None) -> Iterator[str]:
    """A service that answers each POST with `answer` of its body, or with 405 if that is None. Yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            content = b"" if answer is None else json.dumps(answer(body)).encode()
            self.send_response(405 if answer is None else 200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def requirements(tmp_path: Path) -> Path:
    path = tmp_path / "constraints.txt"
    path.write_text("idna==3.20\nclick==8.5.1\n")
    return path


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Returns a function that makes a folder with a lock file, and names the registry that npm asks."""
    if not shutil.which("npm"):
        pytest.skip("npm is not installed")

    def make(registry: str) -> Path:
        root = {"name": "a", "version": "1.0.0", "dependencies": {"thing": "1.0.0"}}
        thing = {"version": "1.0.0", "resolved": "https://registry.npmjs.org/thing/-/thing-1.0.0.tgz"}
        lock = {"name": "a", "lockfileVersion": 3, "packages": {"": root, "node_modules/thing": thing}}
        (tmp_path / "package.json").write_text(json.dumps(root))
        (tmp_path / "package-lock.json").write_text(json.dumps(lock))
        monkeypatch.setenv("npm_config_registry", registry)
        monkeypatch.setenv("npm_config_fetch_retries", "0")
        return tmp_path

    return make


def test_a_vulnerable_package_is_found(requirements: Path) -> None:
    def answer(body: bytes) -> object:
        return {"vulns": [OSV_FINDING]} if json.loads(body)["package"]["name"] == "idna" else {}

    with service(answer) as url:
        assert python_advisories(requirements, url) == [Advisory("idna", "3.20", "GHSA-aaaa-bbbb-cccc", "9.9")]


def test_packages_without_advisories_are_clean(requirements: Path) -> None:
    with service(lambda _: {}) as url:
        assert python_advisories(requirements, url) == []


def test_a_service_that_refuses_is_named(requirements: Path) -> None:
    with service(None) as url, pytest.raises(UnreachableError, match=f"{url} did not answer: .*405"):
        python_advisories(requirements, url)


def test_a_service_that_cannot_be_reached_is_named(requirements: Path) -> None:
    with pytest.raises(UnreachableError, match=r"http://127.0.0.1:1 did not answer"):
        python_advisories(requirements, "http://127.0.0.1:1")


def test_a_vulnerable_npm_package_is_found(npm: Callable[[str], Path]) -> None:
    with service(lambda _: {"thing": [NPM_FINDING]}) as url:
        (found,) = npm_advisories(npm(url))
    assert (found.package, found.id) == ("thing", "GHSA-dddd-eeee-ffff")


def test_a_registry_that_refuses_is_named(npm: Callable[[str], Path]) -> None:
    with service(None) as url, pytest.raises(UnreachableError, match=r"npm's registry did not answer: 405"):
        npm_advisories(npm(url))


def test_no_answer_is_not_a_clean_one() -> None:
    def fail() -> list[Advisory]:
        raise UnreachableError("OSV did not answer.")

    assert report(DRAWN, "x", fail) == UNREACHABLE
    assert report(DRAWN, "x", lambda: [Advisory("a", "1", "GHSA-1", "2")]) == FINDINGS
    assert report(DRAWN, "x", list) == 0


def test_the_table_names_what_was_found() -> None:
    console = Console(file=StringIO(), width=200)
    assert report_licences(console, [Licence("a", "1", "MIT"), Licence("b", "2", "GPL-3.0", ("GPL-3.0",))]) == FINDINGS
    assert isinstance(console.file, StringIO)
    text = console.file.getvalue()
    assert "GPL-3.0" in text
    assert report_licences(console, [Licence("a", "1", "MIT")]) == 0
