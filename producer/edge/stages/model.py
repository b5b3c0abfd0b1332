"""Is the model known, allowed, and does anybody serve it now?"""

from producer.auth.rbac import require_model
from producer.edge.admission import Admission
from producer.edge.demand import Demand
from producer.edge.models import Models
from schemas.control import LoadingModel
from schemas.errors import ErrorCode, ServingError
from schemas.requests import Endpoint

_COME_BACK_S = 5.0
_LONGEST_WAIT_S = 120.0
# Before that the speed of a load says little.
_LEAST_FRACTION = 0.05


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

    def __init__(self, demand: Demand, models: Models) -> None:
        self._demand = demand
        self._models = models

    async def __call__(self, admission: Admission) -> None:
        if admission.serving or admission.model.no_worker == "queue":
            return
        model_id = admission.model.id
        self._demand.note_refused(model_id)
        loading = [loading for _, loading in self._models.loading(model_id)]
        if loading:
            farthest = max(loading, key=lambda one: one.fraction or 0.0)
            raise ServingError(
                ErrorCode.MODEL_LOADING,
                f"The model '{model_id}' is being loaded: {_progress(farthest)}.",
                retryable=True,
                retry_after_s=_remaining_s(farthest),
            )
        raise ServingError(
            ErrorCode.NO_WORKER,
            f"No worker serves the model '{model_id}' now.",
            retryable=True,
            retry_after_s=_COME_BACK_S,
        )


def _progress(loading: LoadingModel) -> str:
    done = "" if loading.fraction is None else f", {loading.fraction:.0%}"
    return f"{loading.stage}{done}, for {loading.elapsed_s:.0f} s"


def _remaining_s(loading: LoadingModel) -> float:
    """At the speed so far; a fixed time where nobody can tell."""
    if loading.fraction is None or loading.fraction < _LEAST_FRACTION:
        return _COME_BACK_S
    rest = loading.elapsed_s * (1 - loading.fraction) / loading.fraction
    return min(_LONGEST_WAIT_S, max(1.0, rest))


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
