"""Is the model known, allowed, and does anybody serve it now?"""

from producer.auth.rbac import require_model
from producer.edge.admission import Admission
from producer.edge.demand import Demand
from producer.edge.models import Models
from schemas.errors import ErrorCode, ServingError
from schemas.requests import Endpoint

_COME_BACK_S = 5.0


class KnownModel:
    """Resolves id, alias or default; refuses unknown models and those without a grant."""

    def __init__(self, models: Models) -> None:
        self._models = models

    async def __call__(self, admission: Admission) -> None:
        admission.card = self._models.require(admission.plan.model)
        require_model(admission.identity, admission.card.id)
        admission.serving = self._models.serving(admission.card.id)


class LiveWorker:
    """Without a worker: refuse, or let it queue, as the model says. Both are demand."""

    def __init__(self, demand: Demand) -> None:
        self._demand = demand

    async def __call__(self, admission: Admission) -> None:
        if admission.serving or admission.model.no_worker == "queue":
            return
        self._demand.note_refused(admission.model.id)
        raise ServingError(
            ErrorCode.NO_WORKER,
            f"No worker serves the model '{admission.model.id}' now.",
            retryable=True,
            retry_after_s=_COME_BACK_S,
        )


async def check_template(admission: Admission) -> None:
    """Chat needs a template in the model's file. Without a live worker nobody can say; the worker will."""
    if admission.plan.endpoint is not Endpoint.CHAT or not admission.serving:
        return
    if not any(served.has_chat_template for served in admission.serving):
        raise ServingError(
            ErrorCode.NO_CHAT_TEMPLATE,
            f"The model '{admission.model.id}' has no chat template. Use /v1/completions.",
            param="messages",
        )
