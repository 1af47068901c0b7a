"""Manages keys, for administrators and the command line, and tells what keys have used."""

import time
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Self

from fastapi import APIRouter, Depends, HTTPException, Query
from pydantic import BaseModel, Field, model_validator
from starlette.responses import Response

from keyreel.server.dependencies import AdminKey, Caller, CurrentServices, ReadKey
from keyreel.server.usage import SHOWN_DAYS, UsageView, read_usage
from keyreel.store.records import MAX_NUMBER, MAX_SIZE, MAX_TIME, Key, Limits, Quota
from keyreel.store.scopes import Scope

router = APIRouter(prefix="/keys", tags=["keys"])

_Number = Annotated[int | None, Field(ge=1, le=MAX_NUMBER)]
_Time = Annotated[float, Field(le=MAX_TIME)]
_Bytes = Annotated[int | None, Field(ge=1, le=MAX_SIZE)]


class KeyLimits(BaseModel):
    """Null means the server's default, and for administrators no limit."""

    max_requests: _Number = Field(None, description="Requests that may wait or run at once.")
    max_queued: _Number = Field(None, description="Requests that may wait at once.")
    max_running: _Number = Field(
        None, description="Requests that run at once. Further ones wait, and do not hold up other keys."
    )
    max_per_minute: _Number = Field(None, description="Requests that may be submitted in a minute.")
    max_bytes: _Bytes = Field(
        None,
        description="Total size of the stored files. A full key can neither submit nor upload; the videos of its "
        "requests are still stored.",
    )
    max_upload_bytes: _Bytes = Field(None, description="Size of what may be uploaded in a day, data URIs included.")

    def limits(self) -> Limits:
        return Limits(**{name: getattr(self, name) for name in Limits.__slots__})


class KeyRequest(KeyLimits):
    name: str = Field(min_length=1, max_length=200)
    admin: bool = Field(False, description="Gives all scopes.")
    scopes: Annotated[frozenset[Scope], Field(min_length=1)] | None = Field(
        None, description="What the key may do, in place of `admin`. Null means all but `operate`."
    )
    expires_at: _Time | None = Field(None, description="When the key ends, in seconds since 1970. Null means never.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.admin and self.scopes is not None:
            raise ValueError("Give either admin or scopes.")
        if self.expires_at is not None and self.expires_at <= time.time():
            raise ValueError("expires_at must be in the future.")
        return self


class KeyView(KeyLimits):
    id: str
    name: str
    admin: bool = Field(description="Whether the key has the scope `operate`.")
    scopes: list[Scope]
    created: float = Field(description="Seconds since 1970.")
    revoked: float | None
    expires_at: float | None

    @classmethod
    def of(cls, key: Key) -> "KeyView":
        plain = {name: getattr(key, name) for name in ("id", "name", "admin", "created", "revoked", "expires_at")}
        limits = {name: getattr(key.limits, name) for name in Limits.__slots__}
        return cls(**plain, **limits, scopes=sorted(key.scopes))


class NewKeyView(KeyView):
    secret: str = Field(description="Shown only once, in this response.")


class QuotaView(BaseModel):
    limit: int | None = Field(description="What holds for the key. Null means no limit.")
    used: int


Quotas = dict[str, QuotaView]
"""By the names of the limits."""

Since = Annotated[date | None, Query(description=f"The first day, in UTC. Default: {SHOWN_DAYS} days in all.")]
Until = Annotated[date | None, Query(description="The last day, in UTC. Default: today.")]


async def read_all(_admin: AdminKey, services: CurrentServices, since: Since = None, until: Until = None) -> UsageView:
    return await read_usage(services.store.usage, None, since, until)


async def read_one(
    key_id: str, key: ReadKey, services: CurrentServices, since: Since = None, until: Until = None
) -> UsageView:
    """Returns the use of the caller's key, or of any key for administrators. Answers 403 to others."""
    _check_may_see(key, key_id)
    return await read_usage(services.store.usage, key_id, since, until)


UsageOfAll = Annotated[UsageView, Depends(read_all)]
UsageOfOne = Annotated[UsageView, Depends(read_one)]


@router.post("", status_code=201, summary="Create a key")
async def create(wanted: KeyRequest, _admin: AdminKey, by: Caller, services: CurrentServices) -> NewKeyView:
    new = await services.store.keys.create(
        wanted.name,
        admin=wanted.admin,
        scopes=wanted.scopes,
        expires_at=wanted.expires_at,
        limits=wanted.limits(),
        by=by,
    )
    return NewKeyView(**KeyView.of(new.key).model_dump(), secret=new.secret)


@router.get("", summary="List the keys")
async def list_keys(_admin: AdminKey, services: CurrentServices) -> list[KeyView]:
    return [KeyView.of(key) for key in await services.store.keys.list()]


@router.delete("/{key_id}", summary="Revoke a key")
async def revoke(key_id: str, _admin: AdminKey, by: Caller, services: CurrentServices) -> dict[str, Any]:
    """Cancels the key's requests. Other processes may accept it for five seconds."""
    revoked = await services.store.keys.revoke(key_id, by)
    services.keyring.forget()
    if not revoked:
        raise HTTPException(404, "There is no such key, or it was revoked before.")
    return {"id": key_id}


@router.put("/{key_id}/limits", summary="Replace the limits of a key")
async def replace_limits(
    key_id: str, wanted: KeyLimits, _admin: AdminKey, by: Caller, services: CurrentServices
) -> KeyLimits:
    """They hold at once. For a limit that is left out, the server's default holds."""
    if not await services.store.keys.set_limits(key_id, wanted.limits(), by):
        raise HTTPException(404, "There is no such key, or it was revoked.")
    return wanted


@router.get("/limits", summary="Get the limits of all keys, and how much of them is used")
async def all_quotas(_admin: AdminKey, services: CurrentServices) -> dict[str, Quotas]:
    """By the ids of the keys, without revoked ones."""
    return {key_id: _quotas(found) for key_id, found in (await services.store.quotas.of()).items()}


@router.get("/{key_id}/limits", summary="Get the limits of a key, and how much of them is used")
async def quotas_of_key(key_id: str, key: ReadKey, services: CurrentServices) -> Quotas:
    """Returns those of the caller's key, or of any key for administrators. Answers 403 to others."""
    _check_may_see(key, key_id)
    found = await services.store.quotas.of(key_id)
    if key_id not in found:
        raise HTTPException(404, "There is no such key, or it was revoked.")
    return _quotas(found[key_id])


@router.get("/usage", summary="Get what all keys have used, by day")
async def all_usage(usage: UsageOfAll) -> UsageView:
    return usage


@router.get("/usage.csv", summary="Get what all keys have used, by day, as CSV", response_class=Response)
async def all_usage_csv(usage: UsageOfAll) -> Response:
    return _csv(usage)


@router.get("/{key_id}/usage", summary="Get what a key has used, by day")
async def usage_of_key(usage: UsageOfOne) -> UsageView:
    return usage


@router.get("/{key_id}/usage.csv", summary="Get what a key has used, by day, as CSV", response_class=Response)
async def usage_of_key_csv(usage: UsageOfOne) -> Response:
    return _csv(usage)


def _check_may_see(key: Key, key_id: str) -> None:
    if not key.admin and key.id != key_id:
        raise HTTPException(403, "This key can only see its own use.")


def _quotas(found: Mapping[str, Quota]) -> Quotas:
    return {name: QuotaView(limit=quota.limit, used=quota.used) for name, quota in found.items()}


def _csv(usage: UsageView) -> Response:
    headers = {"Content-Disposition": 'attachment; filename="usage.csv"'}
    return Response(usage.csv(), headers=headers, media_type="text/csv")
