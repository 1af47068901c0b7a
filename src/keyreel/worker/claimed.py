"""Reads a claimed request, and fits what its endpoint promises on fal to this worker's model and to its expander."""

from keyreel.checkpoints.catalogue import catalogue_name
from keyreel.fal.endpoints import ENDPOINTS, Endpoint
from keyreel.fal.outcomes import JsonObject
from keyreel.fal.schema import Request, ignored_fields, with_published_steps
from keyreel.store.records import Lease
from keyreel.video.recipes import RecipeChoice, default_recipe
from keyreel.worker.messages import Ready

UNEXPANDED = "This server has no prompt expander, so the prompt is used as it is."


def read_claimed(
    lease: Lease, model: Ready, setting: RecipeChoice | None, *, can_expand: bool
) -> tuple[Request, tuple[str, ...]]:
    """Returns the request and what to tell its client. Raises RequestError.

    setting: the operator's recipe. can_expand: whether there is a prompt expander.
    """
    data, endpoint = {**lease.input, "seed": lease.seed}, ENDPOINTS[lease.endpoint]
    request, notices = _with_recipe(endpoint, data, model, setting)
    notices = (*ignored_fields(endpoint.input, data), *notices)
    if request.expand_prompt and not can_expand and data.get("expand_prompt") is None:
        return request.model_copy(update={"expand_prompt": False}), (*notices, UNEXPANDED)
    return request, notices


def _with_recipe(
    endpoint: Endpoint, data: JsonObject, model: Ready, setting: RecipeChoice | None
) -> tuple[Request, tuple[str, ...]]:
    """Returns the request with its endpoint's recipe, if it names none.

    A model that stands in for the endpoint's own and cannot run that recipe runs the server's, with the steps of its
    makers unless the request names its own.
    """
    request, wanted = endpoint.read(data), endpoint.application.recipe
    if request.recipe or wanted is None:
        return request, ()
    obstacle = model.capabilities.obstacle(wanted)
    if obstacle is None or catalogue_name(model.name) in endpoint.application.models:
        return request.model_copy(update={"recipe": wanted}), ()
    recipe = default_recipe(model.capabilities, setting)
    published = endpoint.read(data | {"recipe": "published"})
    stepped = with_published_steps(published, None, model.capabilities.published)
    return stepped.model_copy(update={"recipe": recipe}), (f"{obstacle} The recipe here is {recipe}.",)
