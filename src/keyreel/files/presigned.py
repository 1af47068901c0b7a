"""Links into a bucket, with which anyone may read one object for a limited time."""

from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from keyreel.errors import KeyreelError
from keyreel.files.objects import Objects, translated_errors


@dataclass(frozen=True, slots=True)
class Presigner:
    """origin: scheme, host and port of the links."""

    store: S3Store | GCSStore | AzureStore
    lifetime: timedelta
    origin: str

    async def url(self, path: str) -> str:
        """Returns a URL that answers GET with the object. Raises ObjectStoreError."""
        with translated_errors():
            return await obstore.sign_async(self.store, "GET", path, self.lifetime)


async def open_presigner(objects: Objects, seconds: float) -> Presigner:
    """Makes links that are valid for `seconds`. Raises KeyreelError if the object store cannot sign them."""
    store, lifetime = objects.store, timedelta(seconds=seconds)
    if not isinstance(store, S3Store | GCSStore | AzureStore):
        raise KeyreelError("KEYREEL_PRESIGN_SECONDS needs a bucket in KEYREEL_OBJECT_STORE: a folder has no links.")
    try:
        url = urlsplit(await obstore.sign_async(store, "GET", "origin", lifetime))
    except BaseError as error:
        reason = str(error).partition("\n")[0]
        raise KeyreelError(f"KEYREEL_PRESIGN_SECONDS: cannot sign links into the bucket: {reason}.") from error
    return Presigner(store, lifetime, f"{url.scheme}://{url.netloc}")
