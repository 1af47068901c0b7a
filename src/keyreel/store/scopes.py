"""What a key may do."""

from enum import StrEnum


class Scope(StrEnum):
    SUBMIT = "submit"
    """Submit, cancel and delete requests."""
    READ = "read"
    """Read requests with their results, and the key's use."""
    UPLOAD = "upload"
    OPERATE = "operate"
    """See all requests and the server's state, manage keys."""


ALL_SCOPES = frozenset(Scope)
USER_SCOPES = ALL_SCOPES - {Scope.OPERATE}


def scopes_of_role(*, admin: bool) -> frozenset[Scope]:
    """Returns the scopes of a key that was not given any."""
    return ALL_SCOPES if admin else USER_SCOPES
