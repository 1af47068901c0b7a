"""Builds the services of a server from its settings."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from keyreel.errors import KeyreelError
from keyreel.files.disk import Disk
from keyreel.files.links import Links
from keyreel.files.objects import Objects, open_objects
from keyreel.files.presigned import open_presigner
from keyreel.files.secrets import Purpose, derive_secret, load_secret, make_private
from keyreel.net.addresses import AddressPolicy
from keyreel.net.clients import Network, parse_networks
from keyreel.server.bodies import Bodies
from keyreel.server.credentials import KeyRing
from keyreel.server.dependencies import Services
from keyreel.server.endpoints import ServedEndpoints
from keyreel.server.guesses import Guesses
from keyreel.server.refusals import Refusals
from keyreel.server.snapshot import Snapshot
from keyreel.server.streams import Streams
from keyreel.server.webhook_urls import WebhookUrls
from keyreel.server.webhooks import Signer
from keyreel.settings import SHORTEST_SECRET, Settings
from keyreel.store import Store, open_store
from keyreel.store.records import Limits, NewKey

_ADMIN_KEY = "KEYREEL_ADMIN_KEY"


def database_url(settings: Settings) -> str:
    """Returns the URL of the database; by default a SQLite file in the data folder."""
    return settings.database_url or f"sqlite:///{settings.data_dir / 'keyreel.db'}"


def default_limits(settings: Settings) -> Limits:
    """Returns the limits of users' keys that have none of their own."""
    return Limits(**{name: getattr(settings, f"default_{name}") or None for name in Limits.__slots__})


def address_policy(settings: Settings) -> AddressPolicy:
    """Returns the policy with the operator's list of hosts. Raises KeyreelError when the list is invalid."""
    try:
        return AddressPolicy(tuple(entry.strip() for entry in settings.allow_hosts.split(",") if entry.strip()))
    except ValueError as error:
        raise KeyreelError(f"KEYREEL_ALLOW_HOSTS: {error}") from None


def trusted_proxies(settings: Settings) -> tuple[Network, ...]:
    """Returns the networks of the operator's reverse proxies. Raises KeyreelError when the setting is invalid."""
    return parse_networks(settings.trusted_proxies, "KEYREEL_TRUSTED_PROXIES")


def _secrets(settings: Settings, purpose: Purpose) -> Iterator[bytes]:
    """Yields the secret that signs, and then those whose signatures are valid, too."""
    file = settings.data_dir / f"{purpose}.key"
    if settings.secret:
        yield derive_secret(settings.secret, purpose)
    # What was signed before the operator set KEYREEL_SECRET stays valid while the file exists.
    if not settings.secret or file.exists():
        yield load_secret(file)
    for accepted in _accepted_secrets(settings):
        yield derive_secret(accepted, purpose)


def _accepted_secrets(settings: Settings) -> list[str]:
    """Returns the operator's list. Raises KeyreelError when one of them could be guessed."""
    accepted = [secret.strip() for secret in settings.accepted_secrets.split(",") if secret.strip()]
    if any(len(secret) < SHORTEST_SECRET for secret in accepted):
        raise KeyreelError(f"Each of the KEYREEL_ACCEPTED_SECRETS needs {SHORTEST_SECRET} characters.")
    return accepted


@asynccontextmanager
async def open_services(
    settings: Settings, public_url: str, local_secret: str | None = None, *, has_worker: bool = True
) -> AsyncIterator[Services]:
    """Opens the services of a server.

    `public_url` is the server's address, used unless the settings contain a public URL. `local_secret`: see KeyRing.
    has_worker: whether requests run here, whose files lie in the data folder for a while.
    Raises StoreError when the database cannot be used, and KeyreelError when the settings do not fit.
    """
    endpoints = ServedEndpoints.from_settings(settings)
    folder = settings.data_dir
    make_private(folder)
    async with open_store(database_url(settings), default_limits=default_limits(settings)) as store:
        await check_secret(settings, store)
        signing, *accepted = _secrets(settings, "links")
        objects = open_objects(settings.object_store or folder / "files")
        seconds = settings.presign_seconds
        yield Services(
            settings=settings,
            store=store,
            objects=objects,
            links=Links(settings.public_url or public_url, signing, tuple(accepted)),
            webhook_urls=WebhookUrls(_secrets(settings, "webhook_urls")),
            signer=Signer.from_secrets(*_secrets(settings, "webhooks")),
            snapshot=Snapshot(store),
            keyring=KeyRing(store.keys, store.sessions, local_secret),
            refusals=Refusals(store.audit),
            endpoints=endpoints,
            disk=_disk(settings, objects, has_worker),
            bodies=Bodies(settings.max_bytes_in_flight, settings.max_bytes_in_flight_per_key),
            guesses=Guesses(),
            streams=Streams(settings.max_streams_per_key),
            presigner=await open_presigner(objects, seconds) if seconds else None,
        )


def _disk(settings: Settings, objects: Objects, has_worker: bool) -> Disk:
    """Returns the disks that this process fills. A gateway whose database and files are elsewhere fills none."""
    fills_none = not has_worker and settings.database_url and objects.folder is None
    folders = tuple(dict.fromkeys(filter(None, (settings.data_dir, objects.folder))))
    return Disk(folders, 0 if fills_none else settings.min_free_bytes)


def check_fleet(settings: Settings) -> None:
    """Raises KeyreelError if settings are missing without which processes on several machines cannot work together."""
    needed = {
        "KEYREEL_DATABASE_URL": settings.database_url,
        "KEYREEL_SECRET": settings.secret,
        "KEYREEL_PUBLIC_URL": settings.public_url,
        "KEYREEL_OBJECT_STORE": settings.object_store,
        "KEYREEL_C2PA_CERTIFICATE": settings.c2pa_certificate or not settings.provenance,
        "KEYREEL_C2PA_KEY": settings.c2pa_key or not settings.provenance,
    }
    if missing := [name for name, value in needed.items() if not value]:
        raise KeyreelError(f"A fleet needs the same {', '.join(missing)} in every process. See docs/fleet.md.")


async def check_secret(settings: Settings, store: Store) -> None:
    """Raises KeyreelError if the secret is missing or differs from that of the other processes at this database."""
    if settings.secret is None:
        if settings.database_url:
            raise KeyreelError("KEYREEL_DATABASE_URL needs KEYREEL_SECRET: the same in every process at this database.")
        return
    own, *accepted = [
        derive_secret(secret, "fingerprint").hex() for secret in (settings.secret, *_accepted_secrets(settings))
    ]
    if not await store.installation.check_fingerprint(own, accepted):
        raise KeyreelError(
            "KEYREEL_SECRET differs from the secret of the other processes at this database. "
            "To replace it, see docs/runbook.md."
        )


async def ensure_key(store: Store, admin_key: str | None) -> NewKey | None:
    """Stores the operator's key and revokes the one before. Without one, creates the first key of an empty store.

    Returns the created key. Raises KeyreelError when the operator's key does not have the form `id:secret` or is short.
    """
    if admin_key is None:
        return await store.keys.create_first("first")
    key_id, _, secret = admin_key.partition(":")
    if not (key_id and secret):
        raise KeyreelError(f"{_ADMIN_KEY} must have the form id:secret.")
    if len(secret) < SHORTEST_SECRET:
        raise KeyreelError(
            f"The secret in {_ADMIN_KEY} is too short: it needs {SHORTEST_SECRET} characters. "
            "This makes a good one: openssl rand -hex 32"
        )
    await store.keys.put(key_id, secret, _ADMIN_KEY, admin=True)
    await store.keys.revoke_others(key_id, _ADMIN_KEY)
    return None
