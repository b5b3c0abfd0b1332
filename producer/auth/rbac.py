"""What an identity may do. Scopes of a route come from its operation record; models and priority from the grants."""

from fnmatch import fnmatchcase

from producer.config import Scope
from schemas.errors import ErrorCode, ServingError
from schemas.requests import Identity, PriorityClass


def require_scope(identity: Identity, scopes: frozenset[Scope]) -> None:
    """Pass when the identity has any of `scopes`; an empty set is open to all. Raises ServingError (403)."""
    if not scopes or any(scope in scopes for scope in identity.scopes):
        return
    wanted = " or ".join(f"'{scope}'" for scope in sorted(scopes))
    raise ServingError(
        ErrorCode.INSUFFICIENT_SCOPE, f"This key or token lacks the scope {wanted}, which this route needs."
    )


def may_use_model(identity: Identity, model_id: str) -> bool:
    return any(fnmatchcase(model_id, pattern) for pattern in identity.grants.models)


def require_model(identity: Identity, model_id: str) -> None:
    """Raises ServingError (403) when no grant covers the model."""
    if not may_use_model(identity, model_id):
        raise ServingError(
            ErrorCode.MODEL_NOT_ALLOWED, f"This key or token may not use the model '{model_id}'.", param="model"
        )


def require_priority(identity: Identity, priority: PriorityClass, param: str) -> None:
    """Raises ServingError (403) when the class is above the key's ceiling."""
    ceiling = identity.grants.ceiling
    if priority.rank < ceiling.rank:
        raise ServingError(
            ErrorCode.PRIORITY_NOT_ALLOWED,
            f"This key or token may ask for priority '{ceiling}' at most, not '{priority}'.",
            param=param,
        )
