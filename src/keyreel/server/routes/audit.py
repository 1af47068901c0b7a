"""The audit log, for administrators."""

from fastapi import APIRouter
from starlette.responses import StreamingResponse

from keyreel.server.audit import EntryView, audit_csv, read_audit
from keyreel.server.dependencies import AdminKey, CurrentServices
from keyreel.server.routes.keys import Since, Until
from keyreel.server.routes.operate import Before, Limit
from keyreel.server.usage import shown_days

router = APIRouter(prefix="/api/operate", tags=["operation"])


@router.get("/audit", summary="Get who did what, newest first")
async def entries(
    _admin: AdminKey,
    services: CurrentServices,
    limit: Limit = 60,
    before: Before = None,
    since: Since = None,
    until: Until = None,
) -> list[EntryView]:
    """Without days, all that are kept."""
    return await read_audit(services.store.audit, since, until, before, limit)


@router.get("/audit.csv", summary="Get who did what, newest first, as CSV", response_class=StreamingResponse)
async def entries_csv(
    _admin: AdminKey, services: CurrentServices, since: Since = None, until: Until = None
) -> StreamingResponse:
    headers = {"Content-Disposition": 'attachment; filename="audit.csv"'}
    return StreamingResponse(
        audit_csv(services.store.audit, *shown_days(since, until)), headers=headers, media_type="text/csv"
    )
