from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from obstore.store import S3Store

from keyreel.errors import KeyreelError
from keyreel.files.objects import Objects, open_objects
from keyreel.files.presigned import open_presigner


def bucket(*, virtual_host: bool) -> Objects:
    return Objects(
        S3Store(
            "films",
            access_key_id="key",
            secret_access_key="secret",  # noqa: S106
            region="eu-central-1",
            virtual_hosted_style_request=virtual_host,
        )
    )


@pytest.mark.parametrize(
    ("virtual_host", "origin", "path"),
    [
        (True, "https://films.s3.eu-central-1.amazonaws.com", "/out/a%20b.mp4"),
        (False, "https://s3.eu-central-1.amazonaws.com", "/films/out/a%20b.mp4"),
    ],
)
async def test_a_link_names_the_object_and_its_lifetime(virtual_host: bool, origin: str, path: str) -> None:
    presigner = await open_presigner(bucket(virtual_host=virtual_host), 600)
    url = urlsplit(await presigner.url("out/a b.mp4"))
    assert presigner.origin == origin == f"{url.scheme}://{url.netloc}"
    assert url.path == path
    assert parse_qs(url.query)["X-Amz-Expires"] == ["600"]
    assert presigner.lifetime == timedelta(minutes=10)


async def test_a_folder_has_no_links(tmp_path: Path) -> None:
    with pytest.raises(KeyreelError, match="KEYREEL_PRESIGN_SECONDS needs a bucket"):
        await open_presigner(open_objects(tmp_path), 600)
