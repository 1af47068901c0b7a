"""Lists the content of hub repositories, so that users can choose a LoRA."""

from typing import Annotated

from fastapi import APIRouter, HTTPException, Query

from keyreel.checkpoints.hub import REPOSITORY
from keyreel.errors import RequestError
from keyreel.inputs.loras import hub_api, lora_names
from keyreel.server.dependencies import CurrentServices, SubmitKey
from keyreel.server.errors import Json

router = APIRouter(prefix="/api", tags=["operation"])

Repository = Annotated[str, Query(description="`owner/name`.", max_length=200)]


@router.get("/loras", summary="List the LoRA files of a hub repository")
async def loras(repository: Repository, _key: SubmitKey, services: CurrentServices) -> Json:
    """Answers 404, with the reason, when the repository cannot be read."""
    if not REPOSITORY.fullmatch(repository):
        raise HTTPException(404, "A hub repository is named owner/name.")
    api = hub_api(own_token=services.settings.hub_token_for_loras)
    try:
        return Json(await lora_names(repository, ("repository",), api))
    except RequestError as error:
        raise HTTPException(404, error.problems[0].message) from error
