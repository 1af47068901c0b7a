"""The front page, for programs and for browsers."""

import re
from dataclasses import replace

import httpx
import pytest
from obstore.store import S3Store

from keyreel.fal.endpoints import ENDPOINTS
from keyreel.files.objects import Objects
from keyreel.files.presigned import open_presigner
from keyreel.server.routes.page import FOLDER
from tests.server.live import LiveServer
from tests.server.storage_api import Api


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


async def test_the_policy_allows_the_bucket_only_where_files_are_read_from_it(api: Api) -> None:
    policy = await page_policy(api)
    assert "bucket" not in str(policy)
    store = S3Store("films", endpoint="https://bucket.example", access_key_id="key", secret_access_key="secret")  # noqa: S106
    presigner = await open_presigner(Objects(store), 600)
    api.app.state.services = replace(api.services, presigner=presigner)
    with_bucket = await page_policy(api)
    assert {name for name in policy if policy[name] != with_bucket[name]} == {"img-src", "media-src"}
    assert "https://bucket.example" in with_bucket["media-src"].split()


async def page_policy(api: Api) -> dict[str, str]:
    answer = await api.client.get("/", headers={"Accept": "text/html"})
    directives = (each.partition(" ") for each in answer.headers["content-security-policy"].split("; "))
    return {name: sources for name, _, sources in directives}
