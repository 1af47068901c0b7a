"""What the routes share: the parts of this process, and who is calling.

Routes are written without a trailing slash: the server takes it off before it looks for one.
"""

from dataclasses import dataclass, replace
from typing import Annotated, cast

from fastapi import Depends, HTTPException
from starlette.requests import HTTPConnection

from keyreel.links import Links
from keyreel.objects import Objects
from keyreel.server.credentials import KeyRing
from keyreel.server.endpoints import Served
from keyreel.server.sessions import session_key
from keyreel.server.snapshot import Snapshot
from keyreel.settings import Settings
from keyreel.store import Store
from keyreel.store.records import Key
from keyreel.webhooks import Signer


@dataclass(frozen=True, slots=True)
class Services:
    settings: Settings
    store: Store
    objects: Objects
    links: Links
    signer: Signer
    snapshot: Snapshot
    keyring: KeyRing
    endpoints: Served


async def get_services(connection: HTTPConnection) -> Services:
    return cast("Services", connection.app.state.services)


CurrentServices = Annotated[Services, Depends(get_services)]


async def require_key(connection: HTTPConnection, services: CurrentServices) -> Key:
    """The caller's key: of `Authorization: Key id:secret`, of the playground's session, or of a temporary token for the
    application in the URL.

    Answers 401, in fal's words, when there is none.
    """
    scheme, _, credentials = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "key" and credentials:
        return await _key_of(services, credentials.strip())
    if not scheme and (key_id := session_key(connection, services.links)):
        return await _key_of_session(services, key_id)
    token = credentials if scheme.lower() == "bearer" else connection.query_params.get("fal_jwt_token")
    claims = services.links.verify_token(token) if token else None
    if claims is None or connection.path_params.get("alias") not in claims.apps:
        raise _unauthenticated(connection)
    # A token is for programs that must not have the key, and so not its other rights.
    key = await services.keyring.find(claims.key_id)
    if key is None:
        raise _unauthenticated(connection)
    return replace(key, admin=False)


CurrentKey = Annotated[Key, Depends(require_key)]


async def require_admin(key: CurrentKey) -> Key:
    if not key.admin:
        raise HTTPException(403, "This needs an administrator's key.")
    return key


AdminKey = Annotated[Key, Depends(require_admin)]


async def _key_of(services: Services, credentials: str) -> Key:
    key_id, colon, secret = credentials.partition(":")
    if not colon:
        raise HTTPException(401, "Invalid Key Authorization header format. Expected '<key_id>:<key_secret>'.")
    key = await services.keyring.verify(key_id, secret)
    if key is None:
        raise HTTPException(401, "No user found for Key ID and Secret")
    return key


async def _key_of_session(services: Services, key_id: str) -> Key:
    key = await services.keyring.find(key_id)
    if key is None:
        raise HTTPException(401, "The key of this session was revoked.")
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
