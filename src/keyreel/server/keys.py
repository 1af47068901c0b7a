"""Keys, for administrators and the command line."""

from typing import Any

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, Field

from keyreel.server.dependencies import AdminKey, CurrentServices
from keyreel.store.records import Key

router = APIRouter(prefix="/keys", tags=["keys"])


class KeyRequest(BaseModel):
    name: str = Field(min_length=1, max_length=200)
    admin: bool = False


class KeyView(BaseModel):
    id: str
    name: str
    admin: bool
    created: float = Field(description="Seconds since 1970.")
    revoked: float | None

    @classmethod
    def of(cls, key: Key) -> "KeyView":
        return cls(id=key.id, name=key.name, admin=key.admin, created=key.created, revoked=key.revoked)


class NewKeyView(KeyView):
    secret: str = Field(description="Shown this once.")


@router.post("", status_code=201, summary="Make a key")
async def create(wanted: KeyRequest, _admin: AdminKey, services: CurrentServices) -> NewKeyView:
    new = await services.store.keys.create(wanted.name, admin=wanted.admin)
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
