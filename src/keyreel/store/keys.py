"""API keys. The database holds the SHA-256 of each secret, not the secret."""

import hashlib
import secrets
from collections.abc import Collection
from dataclasses import asdict
from hmac import compare_digest
from typing import Any
from uuid import uuid4

from sqlalchemy import ColumnElement, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from keyreel.store.audit import SERVER, Action, Actor, record
from keyreel.store.changes import Topic
from keyreel.store.database import Database
from keyreel.store.records import NO_LIMITS, Key, Limits, NewKey
from keyreel.store.requests import not_expired
from keyreel.store.scopes import Scope, scopes_of_role
from keyreel.store.tables import AnyRow, api_key
from keyreel.store.transitions import cancel_all

_NAMES = ("id", "name", "admin", "scopes", "created", "revoked", "expires_at", *Limits.__slots__)
_COLUMNS = [api_key.c[name] for name in _NAMES]
_NO_HASH = bytes(32)
_KEYS = "keys"
"""Name of the transactions that may create a key with an id that another process creates too."""


class Keys:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._now = database.now

    async def create(
        self,
        name: str,
        *,
        admin: bool = False,
        scopes: Collection[Scope] | None = None,
        expires_at: float | None = None,
        limits: Limits = NO_LIMITS,
        by: Actor = SERVER,
    ) -> NewKey:
        """Creates a key with a secret of 32 random bytes, which cannot be read again.

        scopes: in place of those of the role, `admin` or not. expires_at: seconds since 1970.
        """
        secret = secrets.token_hex(32)
        terms = {
            "admin": admin if scopes is None else Scope.OPERATE in scopes,
            "scopes": None if scopes is None else sorted(scopes),
            "expires_at": expires_at,
            **asdict(limits),
        }
        async with self._database.write() as connection:
            await self._database.serialise(connection, _KEYS)
            key = await self._insert(connection, str(uuid4()), secret, name, by, **terms)
        return NewKey(key, secret)

    async def create_first(self, name: str) -> NewKey | None:
        """Creates an administrator's key if there is no key yet. Of several processes that start together, one does."""
        secret = secrets.token_hex(32)
        async with self._database.write() as connection:
            await self._database.serialise(connection, _KEYS)
            if (await connection.execute(select(api_key.c.id).limit(1))).first():
                return None
            key = await self._insert(connection, str(uuid4()), secret, name, SERVER, admin=True)
        return NewKey(key, secret)

    async def put(self, key_id: str, secret: str, name: str, *, admin: bool = False, limits: Limits = NO_LIMITS) -> Key:
        """Creates a key with the given id and secret, replacing one with the same id and another secret."""
        async with self._database.write() as connection:
            await self._database.serialise(connection, _KEYS)
            same = (api_key.c.id == key_id) & (api_key.c.secret_hash == _hash(secret)) & (api_key.c.admin == admin)
            statement = select(*_COLUMNS).where(same, api_key.c.revoked.is_(None))
            if row := (await connection.execute(statement)).one_or_none():
                return _key(row)
            await connection.execute(delete(api_key).where(api_key.c.id == key_id))
            return await self._insert(connection, key_id, secret, name, SERVER, admin=admin, **asdict(limits))

    async def verify(self, key_id: str, secret: str) -> Key | None:
        """Returns the key if it exists, is valid and has this secret, else None."""
        statement = select(api_key.c.secret_hash, *_COLUMNS).where(api_key.c.id == key_id, self._is_valid())
        async with self._database.read() as connection:
            row = (await connection.execute(statement)).one_or_none()
        # An unknown id takes the same work, so that the response time does not reveal which ids exist.
        matches = compare_digest(row.secret_hash if row else _NO_HASH, _hash(secret))
        return _key(row) if row and matches else None

    async def get(self, key_id: str) -> Key | None:
        """Returns the key if it exists and is valid."""
        statement = select(*_COLUMNS).where(api_key.c.id == key_id, self._is_valid())
        async with self._database.read() as connection:
            row = (await connection.execute(statement)).one_or_none()
        return _key(row) if row else None

    async def list(self) -> list[Key]:
        """Returns every key, the oldest first."""
        statement = select(*_COLUMNS).order_by(api_key.c.created, api_key.c.id)
        async with self._database.read() as connection:
            return [_key(row) for row in await connection.execute(statement)]

    async def revoke(self, key_id: str, by: Actor = SERVER) -> bool:
        """Revokes a key and cancels its requests. Returns False if it does not exist or was already revoked."""
        return await self._revoke(api_key.c.id == key_id, by)

    async def revoke_others(self, key_id: str, name: str) -> None:
        """Revokes every key of this name but one, and cancels their requests."""
        await self._revoke((api_key.c.name == name) & (api_key.c.id != key_id), SERVER)

    async def set_limits(self, key_id: str, limits: Limits, by: Actor = SERVER) -> bool:
        """Replaces the key's limits. Returns False if it does not exist or is revoked."""
        valid = (api_key.c.id == key_id) & api_key.c.revoked.is_(None)
        async with self._database.write() as connection:
            changed = await connection.execute(update(api_key).where(valid).values(refilled_at=None, **asdict(limits)))
            if changed.rowcount:
                await record(
                    connection, self._now, by, Action.LIMITS_REPLACED, key_id, **_without_nulls(asdict(limits))
                )
        # A key that may run more has requests that can be claimed now.
        self._database.changes.announce(Topic.QUEUED)
        return changed.rowcount > 0

    def _is_valid(self) -> ColumnElement[bool]:
        """Matches keys that are neither revoked nor expired."""
        return api_key.c.revoked.is_(None) & not_expired(api_key.c.expires_at, self._now)

    async def _revoke(self, condition: ColumnElement[bool], by: Actor) -> bool:
        valid = condition & api_key.c.revoked.is_(None)
        stopping: list[str] = []
        async with self._database.write() as connection:
            statement = update(api_key).where(valid).values(revoked=self._now).returning(api_key.c.id)
            revoked = (await connection.execute(statement)).scalars().all()
            for key_id in revoked:
                stopping += await cancel_all(connection, self._now, key_id)
                await record(connection, self._now, by, Action.KEY_REVOKED, key_id)
        self._database.changes.announce(Topic.STATE)
        for request_id in stopping:
            self._database.changes.announce(Topic.CANCEL, request_id)
        return bool(revoked)

    async def _insert(
        self, connection: AsyncConnection, key_id: str, secret: str, name: str, by: Actor, **terms: Any
    ) -> Key:
        """terms: the other columns, which the audit log shows, too."""
        values = {"id": key_id, "secret_hash": _hash(secret), "name": name, "created": self._now, **terms}
        row = (await connection.execute(insert(api_key).values(**values).returning(*_COLUMNS))).one()
        detail = {"name": name, **_without_nulls(terms)}
        await record(connection, self._now, by, Action.KEY_CREATED, key_id, **detail)
        return _key(row)


def _without_nulls(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()


def _key(row: AnyRow) -> Key:
    limits = Limits(**{name: getattr(row, name) for name in Limits.__slots__})
    return Key(row.id, row.name, _scopes(row), row.created, row.revoked, limits, row.expires_at)


def _scopes(row: AnyRow) -> frozenset[Scope]:
    if row.scopes is None:
        return scopes_of_role(admin=row.admin)
    return frozenset(scope for scope in Scope if scope in row.scopes)  # a newer release may know more
