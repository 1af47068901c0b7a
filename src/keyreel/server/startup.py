"""From settings to the parts of a running server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from keyreel.addresses import AddressPolicy
from keyreel.errors import KeyreelError
from keyreel.links import Links, load_secret
from keyreel.objects import open_objects
from keyreel.server.credentials import KeyRing
from keyreel.server.dependencies import Services
from keyreel.server.endpoints import Served
from keyreel.server.snapshot import Snapshot
from keyreel.settings import Settings
from keyreel.store import Store, open_store
from keyreel.store.records import NewKey
from keyreel.webhooks import Signer

OPERATOR = "KEYREEL_ADMIN_KEY"


def database_url(settings: Settings) -> str:
    return settings.database_url or f"sqlite:///{settings.data_dir / 'keyreel.db'}"


def address_policy(settings: Settings) -> AddressPolicy:
    """Raises KeyreelError when the operator's list cannot be read."""
    try:
        return AddressPolicy(tuple(entry.strip() for entry in settings.allow_hosts.split(",") if entry.strip()))
    except ValueError as error:
        raise KeyreelError(f"KEYREEL_ALLOW_HOSTS: {error}") from None


@asynccontextmanager
async def open_services(
    settings: Settings, public_url: str, local_secret: str | None = None
) -> AsyncIterator[Services]:
    """`public_url`: where the server is, unless the settings say how clients reach it. `local_secret`: see KeyRing.

    Raises StoreInUseError, and KeyreelError for endpoints that do not exist.
    """
    endpoints = Served.by(settings)
    folder = settings.data_dir
    folder.mkdir(parents=True, exist_ok=True)
    async with open_store(database_url(settings)) as store:
        yield Services(
            settings=settings,
            store=store,
            objects=open_objects(settings.object_store or folder / "files"),
            links=Links(settings.public_url or public_url, load_secret(folder / "links.key")),
            signer=Signer.load(folder / "webhooks.key"),
            snapshot=Snapshot(store),
            keyring=KeyRing(store.keys, local_secret),
            endpoints=endpoints,
        )


async def ensure_key(store: Store, admin_key: str | None) -> NewKey | None:
    """Sets the operator's key, or makes the first one, which is returned to be shown.

    Raises KeyreelError when the operator's is not `id:secret`.
    """
    if admin_key is None:
        return None if await store.keys.list() else await store.keys.create("first", admin=True)
    key_id, _, secret = admin_key.partition(":")
    if not (key_id and secret):
        raise KeyreelError(f"{OPERATOR} must have the form id:secret.")
    await store.keys.put(key_id, secret, OPERATOR, admin=True)
    return None
