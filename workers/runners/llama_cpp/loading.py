"""From a spec to a model that has decoded once."""

from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

from workers.runners.base import RunnerError, RunnerSpec
from workers.runners.llama_cpp.abort_flag import AbortFlag
from workers.runners.llama_cpp.context import ContextOptions, LlamaContext
from workers.runners.llama_cpp.kv_types import check_kv_type
from workers.runners.llama_cpp.library import Library, load_library
from workers.runners.llama_cpp.model import LlamaModel
from workers.runners.llama_cpp.sizing import KvDemand, KvPlan, check_weights_fit, plan_kv
from workers.runners.llama_cpp.timed_steps import Subject
from workers.runners.llama_cpp.tokenizer import LlamaTokenizer
from workers.runners.llama_cpp.trial import Trial, TrialRequest, find_trouble
from workers.runners.llama_cpp.tuned import Tune, TuningRequest, find_tuning
from workers.runners.llama_cpp.tuning import Tuning
from workers.runners.machine import available_bytes, num_cores, num_processors, processor
from workers.runners.model_files import check_model_file, total_bytes
from workers.runners.remembered import Remembered

DEFAULT_BATCH_TOKENS = 512
# Rows of logits that a step may ask for where sequences are few: room for verified drafts.
_MIN_LOGIT_ROWS = 128


class Loaded(NamedTuple):
    """`trouble`: why the weights are not repacked; None when they are."""

    library: Library
    path: Path
    model: LlamaModel
    tokenizer: LlamaTokenizer
    context: LlamaContext
    plan: KvPlan
    options: ContextOptions
    trouble: str | None


class Experiments(NamedTuple):
    """What is tried out when a model is opened, unless it is remembered how it ended."""

    trial: Trial
    tune: Tune


def load(
    spec: RunnerSpec, stack: ExitStack, abort_flag: AbortFlag, remembered: Remembered, experiments: Experiments
) -> Loaded:
    """Everything, to be closed by `stack`. Raises RunnerError with the reason."""
    kv_type = check_kv_type(spec.kv_type)
    path = check_model_file(spec.source)
    library = load_library()
    _check_gpu(spec, library)
    threads = _threads(spec)
    request = TrialRequest(path, spec.gpu_layers, threads)
    trouble = find_trouble(request, processor(), library.version, remembered, experiments.trial)
    if not library.can_offload:
        check_weights_fit(path.name, total_bytes(path), available_bytes())
    model = LlamaModel(
        library, path, num_gpu_layers=spec.gpu_layers, use_extra_buffers=trouble is None, progress=spec.progress
    )
    stack.callback(model.close)
    tokenizer = LlamaTokenizer(library, model)
    stack.callback(tokenizer.close)
    plan = plan_kv(_demand(spec, model, kv_type, threads))
    subject = Subject(library, model, kv_type, _batch_tokens(spec), abort_flag)
    question = TuningRequest(subject, path, spec.threads, num_processors(), num_cores(), is_repacked=trouble is None)
    tuning = find_tuning(question, processor(), remembered, experiments.tune)
    options = _options(plan, subject, tuning)
    context = LlamaContext(library, model, options, abort_flag if model.can_rewind else None)
    stack.callback(context.close)
    _decode_once(context)
    return Loaded(library, path, model, tokenizer, context, plan, options, trouble)


def _check_gpu(spec: RunnerSpec, library: Library) -> None:
    if spec.gpu_layers and not library.can_offload:
        raise RunnerError(
            f"gpu_layers is {spec.gpu_layers}, but this llama-cpp-python was built without GPU support"
            " (INFERFLUX_BUILD_LLAMA=cuda, rocm or metal, then `make setup`)"
        )


def _threads(spec: RunnerSpec) -> int:
    if spec.threads is None:
        return num_processors()
    if spec.threads < 1:
        raise RunnerError(f"threads must be at least 1, not {spec.threads}")
    return spec.threads


def _demand(spec: RunnerSpec, model: LlamaModel, kv_type: str, threads: int) -> KvDemand:
    return KvDemand(
        context=spec.context,
        sequences=spec.sequences,
        trained_context=model.trained_context,
        threads=threads,
        bytes_per_token=model.kv_bytes_per_token(kv_type),
        available_bytes=available_bytes(),
    )


def _batch_tokens(spec: RunnerSpec) -> int:
    batch_tokens = DEFAULT_BATCH_TOKENS if spec.batch_tokens is None else spec.batch_tokens
    if batch_tokens < 1:
        raise RunnerError(f"batch_tokens must be at least 1, not {batch_tokens}")
    return batch_tokens


def _options(plan: KvPlan, subject: Subject, tuning: Tuning) -> ContextOptions:
    logit_rows = min(subject.batch_tokens, max(_MIN_LOGIT_ROWS, plan.sequences))
    return ContextOptions(plan, subject.kv_type, tuning, subject.batch_tokens, logit_rows)


def _decode_once(context: LlamaContext) -> None:
    """Prove that the context computes."""
    zero = np.zeros(1, np.int32)
    code = context.decode(zero, zero, zero, zero)
    if code != 0:
        raise RunnerError(f"the trial decode failed with code {code}: {context.last_error}")
    if not np.isfinite(context.logits(1)).all():
        raise RunnerError("the trial decode gave logits that are not numbers")
    context.clear(0)
