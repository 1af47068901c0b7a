"""What the routes share: the services of this process, and the caller's key.

Routes are declared without a trailing slash: `keyreel.server.hosts` strips it from every URL.
"""

from dataclasses import dataclass, replace
from typing import Annotated, cast

from fastapi import Depends, HTTPException
from starlette.requests import HTTPConnection

from keyreel.files.disk import Disk
from keyreel.files.links import Links
from keyreel.files.objects import Objects
from keyreel.files.presigned import Presigner
from keyreel.net.clients import client_of
from keyreel.server.bodies import Bodies
from keyreel.server.credentials import KeyRing
from keyreel.server.endpoints import ServedEndpoints
from keyreel.server.guesses import Guesses
from keyreel.server.refusals import Refusals
from keyreel.server.sessions import Session, find_session
from keyreel.server.snapshot import Snapshot
from keyreel.server.streams import Streams
from keyreel.server.webhook_urls import WebhookUrls
from keyreel.server.webhooks import Signer
from keyreel.settings import Settings
from keyreel.store import Store
from keyreel.store.audit import Actor
from keyreel.store.records import Key
from keyreel.store.scopes import Scope


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of this process that the routes use."""

    settings: Settings
    store: Store
    objects: Objects
    links: Links
    webhook_urls: WebhookUrls
    signer: Signer
    snapshot: Snapshot
    keyring: KeyRing
    refusals: Refusals
    endpoints: ServedEndpoints
    disk: Disk
    bodies: Bodies
    guesses: Guesses
    streams: Streams
    presigner: Presigner | None = None
    """None: the content of files passes through the server."""


def services_of(connection: HTTPConnection) -> Services:
    """Returns the services, for dependencies: one that depends on another costs each call 50 microseconds more."""
    return cast("Services", connection.app.state.services)


async def get_services(connection: HTTPConnection) -> Services:
    return services_of(connection)


CurrentServices = Annotated[Services, Depends(get_services)]


async def require_key(connection: HTTPConnection) -> Key:
    """Returns the caller's key. Answers 401, in fal's words, when there is none.

    The key comes from `Authorization: Key id:secret`, from the playground's session, or from a temporary token for the
    application in the URL.
    """
    services = services_of(connection)
    scheme, _, credentials = connection.headers.get("authorization", "").partition(" ")
    # Clients of other services send a key as `Bearer`. No token contains a colon.
    if (scheme.lower() == "key" and credentials) or (scheme.lower() == "bearer" and ":" in credentials):
        return await _verified_key(services, credentials.strip(), address_of(connection))
    if not scheme and (session := find_session(connection, services.links)):
        return await _key_of_session(services, session)
    token = credentials if scheme.lower() == "bearer" else connection.query_params.get("fal_jwt_token")
    claims = services.links.verify_token(token) if token else None
    if claims is None or connection.path_params.get("alias") not in claims.apps:
        raise _unauthenticated(connection)
    # A token is for programs that must not have the key itself, so it never gives an operator's rights.
    key = await services.keyring.find_by_token(claims)
    if key is None:
        raise _unauthenticated(connection)
    return replace(key, scopes=key.scopes - {Scope.OPERATE})


CurrentKey = Annotated[Key, Depends(require_key)]


def address_of(connection: HTTPConnection) -> str | None:
    """Returns the caller's address. What a proxy in KEYREEL_TRUSTED_PROXIES says of it counts."""
    return connection.client.host if connection.client else None


async def caller(connection: HTTPConnection, key: CurrentKey) -> Actor:
    """Returns the caller for the audit log."""
    return Actor(key.id, address_of(connection))


Caller = Annotated[Actor, Depends(caller)]


@dataclass(frozen=True, slots=True)
class Needs:
    """A dependency that returns the caller's key, and answers 403 when the key lacks a scope."""

    scope: Scope

    async def __call__(self, key: CurrentKey) -> Key:
        if self.scope not in key.scopes:
            raise HTTPException(403, f"This key lacks the scope `{self.scope}`, which this call needs.")
        return key


async def needs_any_key(key: CurrentKey) -> Key:
    """Returns the caller's key, for calls that need no scope."""
    return key


async def needs_no_key() -> None:
    """Declares that a route is open to everyone, or checks something else than a key."""


SubmitKey = Annotated[Key, Depends(Needs(Scope.SUBMIT))]
ReadKey = Annotated[Key, Depends(Needs(Scope.READ))]
UploadKey = Annotated[Key, Depends(Needs(Scope.UPLOAD))]
AdminKey = Annotated[Key, Depends(Needs(Scope.OPERATE))]
AnyKey = Annotated[Key, Depends(needs_any_key)]
OPEN = Depends(needs_no_key)


def endpoint_path(connection: HTTPConnection) -> str:
    """Returns the part of the endpoint's id that follows its application in the URL, or nothing."""
    return str(connection.path_params.get("path", ""))


async def _verified_key(services: Services, credentials: str, address: str | None) -> Key:
    key_id, colon, secret = credentials.partition(":")
    if not colon:
        raise HTTPException(401, "Invalid Key Authorization header format. Expected '<key_id>:<key_secret>'.")
    client = client_of(address) if address else ""
    services.guesses.check(client, key_id)
    key = await services.keyring.verify(key_id, secret)
    if key is None:
        services.guesses.was_wrong(client, key_id)
        await services.refusals.add(key_id, address)
        raise HTTPException(401, "No user found for Key ID and Secret")
    services.guesses.was_right(client, key_id)
    return key


async def _key_of_session(services: Services, session: Session) -> Key:
    key = await services.keyring.find_by_session(session.id, session.claims)
    if key is None:
        raise HTTPException(401, "This session has ended: its user signed out, or its key was revoked or has expired.")
    return key


def _unauthenticated(connection: HTTPConnection) -> HTTPException:
    parameters = connection.path_params
    if "owner" not in parameters:
        return HTTPException(401, "Authentication is required to access this resource.")
    application = "/".join(filter(None, (parameters.get(part) for part in ("owner", "alias", "path"))))
    return HTTPException(
        401,
        f'Cannot access application "{application}". Authentication is required to access this application.',
    )
