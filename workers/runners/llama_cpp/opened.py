"""What a loaded model says about itself."""

from workers.runners.base import Capabilities, Opened, RunnerFacts
from workers.runners.bytes_per_token import bytes_per_token
from workers.runners.chat_template import choose_template
from workers.runners.llama_cpp.fingerprint import fingerprint
from workers.runners.llama_cpp.loading import Loaded
from workers.runners.llama_cpp.split_kv import SplitKv
from workers.runners.llama_cpp.unified_kv import UnifiedKv
from workers.runners.machine import num_processors
from workers.runners.remembered import Remembered

# Twelve times a second still reads as a flow. Handed over at every step, the tokens of one fast stream cost broker,
# edge and event loop a tenth of the two processors that the steps run on.
_EMIT_INTERVAL_S = 0.08


def describe(loaded: Loaded, kv: SplitKv | UnifiedKv, template_override: str | None, remembered: Remembered) -> Opened:
    """Facts and capabilities."""
    template = choose_template(loaded.model.metadata("tokenizer.chat_template"), template_override)
    tokenizer = loaded.tokenizer
    facts = RunnerFacts(
        fingerprint=fingerprint(
            loaded.path,
            remembered,
            version=loaded.library.version,
            kv_type=loaded.options.kv_type,
            chat_template=template,
        ),
        tokenizer=tokenizer,
        chat_template=template,
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        description=_description(loaded, kv),
        bytes_per_token=bytes_per_token(tokenizer),
        max_token_bytes=tokenizer.max_token_bytes,
    )
    return Opened(facts, _capabilities(loaded, kv))


def _capabilities(loaded: Loaded, kv: SplitKv | UnifiedKv) -> Capabilities:
    plan, options = loaded.plan, loaded.options
    # The exported form names the number of buffers, one per sequence or one for all.
    num_buffers = 1 if plan.is_unified else plan.num_handles
    return Capabilities(
        max_batch_tokens=loaded.context.max_batch_tokens,
        max_logit_rows=options.logit_rows,
        max_handles=plan.num_handles,
        max_tokens_per_handle=plan.context,
        kv_token_budget=plan.token_budget,
        fork=kv.fork_kind,
        fork_cost_tokens=kv.fork_cost_tokens,
        can_truncate=loaded.model.can_rewind,
        page_size=None,
        can_export=True,
        # Kernels differ by number of rows.
        exact_batching=False,
        kv_format=f"llama-cpp-python {loaded.library.version} {options.kv_type} {num_buffers}",
        emit_interval_s=_emit_interval_s(loaded),
        max_running=plan.sequences,
        max_cached_tokens=plan.max_kept_tokens,
    )


def _emit_interval_s(loaded: Loaded) -> float:
    """Held back only where the threads of a step take every processor."""
    takes_all = not loaded.library.can_offload and loaded.options.tuning.most_threads >= num_processors()
    return _EMIT_INTERVAL_S if takes_all else 0.0


def _description(loaded: Loaded, kv: SplitKv | UnifiedKv) -> str:
    plan, options = loaded.plan, loaded.options
    device = "GPU build" if loaded.library.can_offload else "CPU"
    parts = [
        f"llama.cpp (llama-cpp-python {loaded.library.version}, {device})",
        loaded.model.description,
        options.tuning.in_words,
        f"{plan.sequences} sequences of up to {plan.context} tokens and {plan.num_spare} to keep",
        f"{kv.layout} {options.kv_type} KV of {plan.num_cells} tokens",
    ]
    if loaded.trouble is not None:
        parts.append(f"weights not repacked, since the trial decode ended with {loaded.trouble}")
    return ", ".join(parts)
