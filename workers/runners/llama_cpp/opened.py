"""What a loaded model says about itself."""

from workers.runners.base import Capabilities, Opened, RunnerFacts
from workers.runners.llama_cpp.chat_template import chat_template
from workers.runners.llama_cpp.fingerprint import fingerprint
from workers.runners.llama_cpp.loading import Loaded
from workers.runners.llama_cpp.machine import num_processors
from workers.runners.llama_cpp.remembered import Remembered
from workers.runners.llama_cpp.split_kv import SplitKv
from workers.runners.llama_cpp.tokenizer import LlamaTokenizer
from workers.runners.llama_cpp.unified_kv import UnifiedKv

# Twelve times a second still reads as a flow. Handed over at every step, the tokens of one fast stream cost broker,
# edge and event loop a tenth of the two processors that the steps run on.
_EMIT_INTERVAL_S = 0.08
# Prose, code and digits, about as they come in requests.
_SAMPLE = """Explain in two or three sentences why the sky is blue, as if to a child of ten. Then answer: how many of
the 1,024 boxes are left after 37 were sold on 2024-03-18 and 12.5 % of the rest were given away?

def moving_average(values: list[float], width: int) -> list[float]:
    return [sum(values[i : i + width]) / width for i in range(len(values) - width + 1)]
"""


def describe(loaded: Loaded, kv: SplitKv | UnifiedKv, template_override: str | None, remembered: Remembered) -> Opened:
    """Facts and capabilities."""
    template = chat_template(loaded.model, template_override)
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
        bytes_per_token=_bytes_per_token(tokenizer),
        max_token_bytes=tokenizer.max_token_bytes,
    )
    return Opened(facts, _capabilities(loaded, kv))


def _capabilities(loaded: Loaded, kv: SplitKv | UnifiedKv) -> Capabilities:
    plan, options = loaded.plan, loaded.options
    # The exported form names the number of buffers, one per sequence or one for all.
    num_buffers = 1 if plan.is_unified else plan.sequences
    return Capabilities(
        max_batch_tokens=loaded.context.max_batch_tokens,
        max_logit_rows=options.logit_rows,
        max_handles=plan.sequences,
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
    )


def _emit_interval_s(loaded: Loaded) -> float:
    """Held back only where the threads of a step take every processor."""
    takes_all = not loaded.library.can_offload and loaded.options.threads >= num_processors()
    return _EMIT_INTERVAL_S if takes_all else 0.0


def _description(loaded: Loaded, kv: SplitKv | UnifiedKv) -> str:
    plan, options = loaded.plan, loaded.options
    device = "GPU build" if loaded.library.can_offload else "CPU"
    parts = [
        f"llama.cpp (llama-cpp-python {loaded.library.version}, {device})",
        loaded.model.description,
        f"{options.threads} thread{'s' if options.threads > 1 else ''}",
        f"{plan.sequences} sequences of up to {plan.context} tokens",
        f"{kv.layout} {options.kv_type} KV of {plan.num_cells} tokens",
    ]
    if loaded.trouble is not None:
        parts.append(f"weights not repacked, since the trial decode ended with {loaded.trouble}")
    return ", ".join(parts)


def _bytes_per_token(tokenizer: LlamaTokenizer) -> float:
    token_ids = tokenizer.encode(_SAMPLE, add_bos=False, parse_special=False)
    return len(_SAMPLE.encode()) / max(1, len(token_ids))
