"""Uploads, as both of fal's clients make them, and temporary tokens that stand for a key.

The JavaScript client, and the Python client with its repository `fal`, request a signed URL and put the content there.
The Python client's default is to request an upload token and to post the content with it. Both send large files in
parts, which may arrive in any order.
"""

import re
from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import uuid4

from fastapi import APIRouter, Depends, Header, HTTPException, Path
from pydantic import AliasChoices, BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from keyreel.files.links import FileRef, safe_name
from keyreel.server.dependencies import AnyKey, CurrentServices, Needs, Services, UploadKey, require_key
from keyreel.server.lifecycle import Lifecycle, parse_lifecycle
from keyreel.server.openapi import FILE_BODY, FILE_NAME, KEYED, NAMED_FILE
from keyreel.server.origins import CurrentOrigins
from keyreel.server.uploads import MAX_PARTS, Part, discard, join, receive, receive_part
from keyreel.store.records import File, NewFile
from keyreel.store.scopes import Scope

router = APIRouter(tags=["storage"])

UPLOAD_LIFETIME = 3600.0
"""Seconds for which an upload URL or an upload token is valid."""
MAX_TOKEN_LIFETIME = 86_400.0

_CONTENT_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+", re.ASCII)


class NewUpload(BaseModel):
    file_name: str = "file"
    content_type: str = "application/octet-stream"


class UploadURLs(BaseModel):
    upload_url: str
    file_url: str


class UploadToken(BaseModel):
    token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105
    base_url: str
    expires_at: datetime


class Uploaded(BaseModel):
    access_url: str


class MultipartUpload(BaseModel):
    access_url: str
    uploadId: str  # noqa: N815


class UploadParts(BaseModel):
    parts: tuple[Part, ...] = Field(min_length=1, max_length=MAX_PARTS)


class TokenRequest(BaseModel):
    allowed_apps: tuple[str, ...] = ()
    lifetime: float = Field(
        default=120,
        gt=0,
        le=MAX_TOKEN_LIFETIME,
        validation_alias=AliasChoices("token_expiration", "duration"),
        description="Seconds.",
    )


PartNumber = Annotated[int, Path(ge=1, le=MAX_PARTS)]
FalHeader = Annotated[str | None, Header()]


async def file_lifecycle(
    x_fal_object_lifecycle: FalHeader = None, x_fal_object_lifecycle_preference: FalHeader = None
) -> Lifecycle:
    """Returns the lifecycle of the uploaded file. The Python client sends both headers, JavaScript only the first."""
    return parse_lifecycle(x_fal_object_lifecycle or x_fal_object_lifecycle_preference)


async def uploader(request: Request, services: CurrentServices) -> str:
    """Returns the id of the uploading key, from an upload token or from the key itself."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return (await Needs(Scope.UPLOAD)(await require_key(request))).id
    claims = services.links.verify_upload_token(token)
    if claims is None or await services.keyring.find_by_token(claims) is None:
        raise HTTPException(401, "The upload token is invalid or has expired.")
    return claims.key_id


async def signed_upload(token: str, services: CurrentServices, expires: int = 0, signature: str = "") -> File:
    """Returns the file that a signed URL permits anyone to upload."""
    ref = services.links.open_upload(token, expires, signature)
    if ref is None:
        raise HTTPException(403, "This upload URL is invalid or has expired.")
    file = await _find(services, ref)
    if await services.keyring.find(file.key_id) is None:
        raise HTTPException(403, "The key that made this upload URL was revoked.")
    return file


async def multipart_upload(
    token: str, upload_id: str, services: CurrentServices, key_id: Annotated[str, Depends(uploader)]
) -> File:
    """Returns the file that the caller uploads in parts."""
    ref = services.links.open_file_token(token)
    if ref is None or ref.id != upload_id:
        raise HTTPException(404, "There is no such upload.")
    file = await _find(services, ref)
    if file.key_id != key_id:
        raise HTTPException(403, "This upload belongs to another key.")
    return file


FileLifecycle = Annotated[Lifecycle, Depends(file_lifecycle)]
Uploader = Annotated[str, Depends(uploader)]
SignedUpload = Annotated[File, Depends(signed_upload)]
OpenUpload = Annotated[File, Depends(multipart_upload)]


@router.post("/storage/upload/initiate", summary="Get an upload URL")
@router.post("/storage/upload/initiate-multipart", summary="Get a URL for an upload in parts")
async def initiate(
    upload: NewUpload, key: UploadKey, services: CurrentServices, origins: CurrentOrigins, lifecycle: FileLifecycle
) -> UploadURLs:
    file = await _add(services, key.id, upload.file_name, upload.content_type, lifecycle)
    return UploadURLs(upload_url=origins.links.upload_url(file, UPLOAD_LIFETIME), file_url=origins.links.file_url(file))


@router.put("/storage/uploads/{token}", summary="Upload a file", openapi_extra=FILE_BODY)
async def put_file(
    request: Request, file: SignedUpload, services: CurrentServices, origins: CurrentOrigins
) -> dict[str, str]:
    await receive(request, services, file)
    return {"file_url": origins.links.file_url(file)}


@router.put("/storage/uploads/{token}/{number}", summary="Upload a part", openapi_extra=FILE_BODY)
async def put_signed_part(request: Request, number: PartNumber, file: SignedUpload, services: CurrentServices) -> Part:
    return await receive_part(request, services, file, number)


@router.post("/storage/uploads/{token}/complete", summary="Complete an upload in parts")
async def complete_signed(
    parts: UploadParts, file: SignedUpload, services: CurrentServices, origins: CurrentOrigins
) -> dict[str, str]:
    await join(services, file, parts.parts)
    return {"file_url": origins.links.file_url(file)}


@router.post("/storage/auth/token", summary="Get an upload token")
async def upload_token(key: UploadKey, services: CurrentServices, origins: CurrentOrigins) -> UploadToken:
    token = services.links.issue_upload_token(key, UPLOAD_LIFETIME)
    expires = datetime.fromtimestamp(services.links.clock() + UPLOAD_LIFETIME, UTC)
    return UploadToken(token=token, base_url=origins.links.base_url, expires_at=expires)


@router.post(
    "/files/upload", summary="Upload a file with an upload token", openapi_extra=FILE_BODY | NAMED_FILE | KEYED
)
async def upload_file(
    request: Request, key_id: Uploader, services: CurrentServices, origins: CurrentOrigins, lifecycle: FileLifecycle
) -> Uploaded:
    file = await _add_from_headers(request, services, key_id, lifecycle)
    try:
        await receive(request, services, file)
    except BaseException:
        await discard(services, file)
        raise
    return Uploaded(access_url=origins.links.file_url(file))


@router.post("/files/upload/multipart", summary="Start an upload in parts", openapi_extra=NAMED_FILE | KEYED)
async def begin_multipart(
    request: Request, key_id: Uploader, services: CurrentServices, origins: CurrentOrigins, lifecycle: FileLifecycle
) -> MultipartUpload:
    file = await _add_from_headers(request, services, key_id, lifecycle)
    return MultipartUpload(access_url=origins.links.file_url(file), uploadId=file.id)


@router.put(
    "/files/{token}/{name}/multipart/{upload_id}/{number}",
    summary="Upload a part",
    response_class=Response,
    openapi_extra=FILE_NAME | FILE_BODY | KEYED,
)
async def put_part(request: Request, number: PartNumber, file: OpenUpload, services: CurrentServices) -> Response:
    part = await receive_part(request, services, file, number)
    return Response(headers={"ETag": part.etag})


@router.post(
    "/files/{token}/{name}/multipart/{upload_id}/complete",
    summary="Complete an upload in parts",
    openapi_extra=FILE_NAME | KEYED,
)
async def complete_multipart(
    parts: UploadParts, file: OpenUpload, services: CurrentServices, origins: CurrentOrigins
) -> Uploaded:
    await join(services, file, parts.parts)
    return Uploaded(access_url=origins.links.file_url(file))


@router.post("/tokens", summary="Get a temporary token")
@router.post("/tokens/realtime", summary="Get a temporary token")
async def temporary_token(wanted: TokenRequest, key: AnyKey, services: CurrentServices) -> str:
    """Returns a token with which a browser can call the named applications for a limited time, without the key."""
    return services.links.issue_token(key, wanted.allowed_apps, wanted.lifetime)


async def _add_from_headers(request: Request, services: Services, key_id: str, lifecycle: Lifecycle) -> File:
    """Adds the file that the headers describe."""
    headers = request.headers
    name = headers.get("x-fal-file-name", "file")
    return await _add(services, key_id, name, headers.get("content-type", ""), lifecycle)


async def _add(services: Services, key_id: str, name: str, content_type: str, lifecycle: Lifecycle) -> File:
    services.disk.require()
    plain_type = content_type.partition(";")[0].strip().lower()
    new = NewFile(
        key_id=key_id,
        object=f"uploads/{uuid4()}",
        name=safe_name(name),
        content_type=plain_type if _CONTENT_TYPE.fullmatch(plain_type) else "application/octet-stream",
        acl=lifecycle.acl,
        lifetime=lifecycle.lifetime,
    )
    return await services.store.files.add(new, upload=True)


async def _find(services: Services, ref: FileRef) -> File:
    file = await services.store.files.get(ref.id)
    if file is None:
        raise HTTPException(410, "This upload has expired. Start a new one.")
    return file
