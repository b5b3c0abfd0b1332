"""May this identity generate at all, and with this priority?"""

from producer.auth.rbac import require_priority, require_scope
from producer.config import Scope
from producer.edge.admission import Admission

_GENERATE = frozenset({Scope.GENERATE})


async def check_scope(admission: Admission) -> None:
    require_scope(admission.identity, _GENERATE)


async def check_priority(admission: Admission) -> None:
    require_priority(admission.identity, admission.plan.priority, admission.plan.priority_param)
