"""Manages keys, for administrators and the command line."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, Field

from keyreel.server.dependencies import AdminKey, CurrentServices
from keyreel.store.records import Key

router = APIRouter(prefix="/keys", tags=["keys"])


MaxRequests = Annotated[int | None, Field(ge=1, description="Requests that may wait or run at once. Null: no limit.")]


class KeyRequest(BaseModel):
    name: str = Field(min_length=1, max_length=200)
    admin: bool = False
    max_requests: MaxRequests = None


class KeyView(BaseModel):
    id: str
    name: str
    admin: bool
    created: float = Field(description="Seconds since 1970.")
    revoked: float | None
    max_requests: MaxRequests

    @classmethod
    def of(cls, key: Key) -> "KeyView":
        return cls(**asdict(key))


class NewKeyView(KeyView):
    secret: str = Field(description="Shown only once, in this response.")


@router.post("", status_code=201, summary="Create a key")
async def create(wanted: KeyRequest, _admin: AdminKey, services: CurrentServices) -> NewKeyView:
    new = await services.store.keys.create(**wanted.model_dump())
    return NewKeyView(**KeyView.of(new.key).model_dump(), secret=new.secret)


@router.get("", summary="List the keys")
async def list_keys(_admin: AdminKey, services: CurrentServices) -> list[KeyView]:
    return [KeyView.of(key) for key in await services.store.keys.list()]


@router.delete("/{key_id}", summary="Revoke a key")
async def revoke(key_id: str, _admin: AdminKey, services: CurrentServices) -> dict[str, Any]:
    revoked = await services.store.keys.revoke(key_id)
    services.keyring.forget()
    if not revoked:
        raise HTTPException(404, "There is no such key, or it was revoked before.")
    return {"id": key_id}
