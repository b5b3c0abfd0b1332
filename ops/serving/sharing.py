"""Several models in one process: all of them on one library, where the choice is ours."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from ops.serving.backends import can_share_process
from ops.serving.plan import PlannedModel


def share_process(plan: Sequence[PlannedModel]) -> tuple[PlannedModel, ...]:
    """The plan with one backend for all, if there is one that each could have got: the one that most have got by
    themselves, else the first model's. As it is where there is none, or no need of one."""
    if can_share_process(model.backend for model in plan):
        return tuple(plan)
    wanted = [model.backend for model in plan if model.backend != "echo"]
    common = [backend for backend in wanted if all(_could_run(model, backend) for model in plan)]
    if not common:
        return tuple(plan)
    backend = max(common, key=wanted.count)
    return tuple(on_one_of(model, {backend}) for model in plan)


def on_one_of(model: PlannedModel, backends: Collection[str]) -> PlannedModel:
    """The model on the library that its process has already, if it has one and speed alone decided for another."""
    found = [backend for backend in model.rivals if backend in backends]
    if model.backend in backends or not found:
        return model
    reason = f"automatic: the library of the other models in its process; else {model.backend}: {model.reason}"
    return replace(model, backend=found[0], reason=reason)


def _could_run(model: PlannedModel, backend: str) -> bool:
    return model.backend in ("echo", backend) or backend in model.rivals
