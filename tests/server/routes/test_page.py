"""The front page, for programs and for browsers."""

import re

import httpx
import pytest

from keyreel.fal.endpoints import ENDPOINTS
from keyreel.server.routes.page import FOLDER
from tests.server.live import LiveServer


def test_programs_get_a_description(http: httpx.Client) -> None:
    answer = http.get("/", headers={"Authorization": ""})
    assert answer.status_code == 200
    assert answer.json()["endpoints"] == list(ENDPOINTS)


@pytest.mark.skipif(not (FOLDER / "index.html").exists(), reason="the page is not built (make page)")
def test_browsers_get_the_page_and_its_assets(server: LiveServer) -> None:
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        assert client.get("/").json()["name"] == "keyreel"
        page = client.get("/", headers={"Accept": "text/html"})
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        script = re.search(r'src="\./(assets/[^"]+\.js)"', page.text)
        assert script
        plain = client.get(script[1], headers={"Accept-Encoding": "identity"})
        packed = client.get(script[1])
        assert plain.content == packed.content
        assert packed.headers["content-encoding"] == "gzip"
        assert "immutable" in packed.headers["cache-control"]
        assert client.get("/assets/../page.py").status_code == 404
        assert client.get("/assets/nothing.js").status_code == 404
