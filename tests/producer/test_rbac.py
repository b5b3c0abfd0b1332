"""Scopes, model grants and priority ceilings."""

import pytest

from producer.auth.rbac import may_use_model, require_model, require_priority, require_scope
from producer.config import Scope
from schemas.errors import ErrorCode, ServingError
from schemas.requests import Grants, Identity, PriorityClass


@pytest.mark.parametrize("held", list(Scope))
@pytest.mark.parametrize("needed", list(Scope))
def test_no_scope_implies_another(held: Scope, needed: Scope) -> None:
    identity = Identity("a", scopes=(str(held),))
    if held is needed:
        require_scope(identity, frozenset({needed}))
    else:
        with pytest.raises(ServingError) as refused:
            require_scope(identity, frozenset({needed}))
        assert refused.value.code is ErrorCode.INSUFFICIENT_SCOPE


def test_any_of_several_scopes_opens_and_an_open_route_needs_none() -> None:
    require_scope(Identity("a", scopes=("read",)), frozenset({Scope.READ, Scope.GENERATE}))
    require_scope(Identity("a"), frozenset())


def test_model_grants_are_globs() -> None:
    identity = Identity("a", grants=Grants(models=("qwen/*", "echo")))
    assert may_use_model(identity, "qwen/2.5")
    assert may_use_model(identity, "echo")
    assert not may_use_model(identity, "Echo")
    with pytest.raises(ServingError) as refused:
        require_model(identity, "other")
    assert (refused.value.code, refused.value.param) == (ErrorCode.MODEL_NOT_ALLOWED, "model")


@pytest.mark.parametrize("ceiling", list(PriorityClass))
@pytest.mark.parametrize("asked", list(PriorityClass))
def test_a_ceiling_bounds_the_class(ceiling: PriorityClass, asked: PriorityClass) -> None:
    identity = Identity("a", grants=Grants(ceiling=ceiling))
    if asked.rank >= ceiling.rank:
        require_priority(identity, asked, "priority")
    else:
        with pytest.raises(ServingError) as refused:
            require_priority(identity, asked, "service_tier")
        assert (refused.value.code, refused.value.param) == (ErrorCode.PRIORITY_NOT_ALLOWED, "service_tier")
