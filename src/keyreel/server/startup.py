"""Builds the services of a server from its settings."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from keyreel.errors import KeyreelError
from keyreel.files.links import Links, load_secret
from keyreel.files.objects import open_objects
from keyreel.net.addresses import AddressPolicy
from keyreel.server.credentials import KeyRing
from keyreel.server.dependencies import Services
from keyreel.server.endpoints import ServedEndpoints
from keyreel.server.snapshot import Snapshot
from keyreel.server.webhooks import Signer
from keyreel.settings import Settings
from keyreel.store import Store, open_store
from keyreel.store.records import NewKey

_ADMIN_KEY = "KEYREEL_ADMIN_KEY"


def database_url(settings: Settings) -> str:
    """Returns the URL of the database; by default a SQLite file in the data folder."""
    return settings.database_url or f"sqlite:///{settings.data_dir / 'keyreel.db'}"


def address_policy(settings: Settings) -> AddressPolicy:
    """Returns the policy with the operator's list of hosts. Raises KeyreelError when the list is invalid."""
    try:
        return AddressPolicy(tuple(entry.strip() for entry in settings.allow_hosts.split(",") if entry.strip()))
    except ValueError as error:
        raise KeyreelError(f"KEYREEL_ALLOW_HOSTS: {error}") from None


@asynccontextmanager
async def open_services(
    settings: Settings, public_url: str, local_secret: str | None = None
) -> AsyncIterator[Services]:
    """Opens the services of a server.

    `public_url` is the server's address, used unless the settings contain a public URL. `local_secret`: see KeyRing.
    Raises StoreInUseError, and KeyreelError when the settings name an unknown endpoint.
    """
    endpoints = ServedEndpoints.from_settings(settings)
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
    """Stores the operator's key. Without one, creates the first key of an empty store and returns it.

    Raises KeyreelError when the operator's key does not have the form `id:secret`.
    """
    if admin_key is None:
        return await store.keys.create_first("first")
    key_id, _, secret = admin_key.partition(":")
    if not (key_id and secret):
        raise KeyreelError(f"{_ADMIN_KEY} must have the form id:secret.")
    await store.keys.put(key_id, secret, _ADMIN_KEY, admin=True)
    return None
