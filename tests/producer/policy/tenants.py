"""Changes that can be told apart and must all survive."""

from collections.abc import Callable

from schemas.policy import LimitSet, LimitsPolicy, PolicyDocument


def with_tenant(name: str) -> Callable[[PolicyDocument], PolicyDocument]:
    """Adds limits for one tenant, and leaves those of others."""

    def change(document: PolicyDocument) -> PolicyDocument:
        limits = document.limits if document.limits is not None else LimitsPolicy()
        tenants = {**limits.tenants, name: LimitSet(requests_per_minute=1)}
        return document.model_copy(update={"limits": limits.model_copy(update={"tenants": tenants})})

    return change
