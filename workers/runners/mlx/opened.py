"""What a loaded model says about itself."""

from importlib.metadata import version

from workers.runners.base import Capabilities, ForkKind, Opened
from workers.runners.checkpoint_facts import describe_checkpoint
from workers.runners.mlx.loading import Loaded

_FORK_COST_TOKENS = 8


def describe(loaded: Loaded, template_override: str | None) -> Opened:
    """Facts and capabilities."""
    weights = "packed" if loaded.is_packed else loaded.compute_type
    facts = describe_checkpoint(
        loaded.checkpoint,
        template_override,
        identity=("mlx", version("mlx"), version("mlx-lm"), weights, loaded.compute_type, loaded.kv_type),
        description=_description(loaded),
    )
    return Opened(facts, _capabilities(loaded))


def _capabilities(loaded: Loaded) -> Capabilities:
    session = loaded.session
    plan, limits = session.plan, session.limits
    return Capabilities(
        max_batch_tokens=limits.max_tokens,
        max_logit_rows=limits.max_logit_rows,
        max_handles=plan.handles,
        max_tokens_per_handle=plan.context,
        kv_token_budget=plan.token_budget,
        fork=ForkKind.COPIED,
        fork_cost_tokens=_FORK_COST_TOKENS,
        can_truncate=True,
        page_size=None,
        can_export=True,
        # Kernels differ by the shape of a call, and calls by what else is in a batch.
        exact_batching=False,
        kv_format=f"mlx {version('mlx')} {loaded.kv_type}",
        max_running=plan.sequences,
    )


def _description(loaded: Loaded) -> str:
    plan = loaded.session.plan
    weights = "quantised as in the file" if loaded.is_packed else loaded.compute_type
    parts = [
        f"MLX {version('mlx')} (mlx-lm {version('mlx-lm')}, {loaded.device.name})",
        loaded.checkpoint.description,
        f"weights {weights}",
        f"{plan.sequences} sequences of up to {plan.context} tokens",
        f"{loaded.kv_type} KV of {plan.token_budget} tokens",
    ]
    return ", ".join(parts)
