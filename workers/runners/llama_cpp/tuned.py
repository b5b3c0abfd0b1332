"""The tuning of a model on this machine: remembered, or else measured."""

import hashlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from workers.runners.base import RunnerError
from workers.runners.llama_cpp.timed_steps import Subject, TimedSteps
from workers.runners.llama_cpp.tuner import Outcome, tune
from workers.runners.llama_cpp.tuning import Choices, Tuning, fewer_threads, untuned
from workers.runners.machine import Processor
from workers.runners.model_files import identity
from workers.runners.remembered import Remembered

logger = logging.getLogger(__name__)

BUDGET_S = 3.0
# What is measured, and what follows from it.
_RULES = ("comparison.py", "timed_steps.py", "tuner.py", "tuning.py")


class TuningRequest(NamedTuple):
    """`threads` None: not configured. `is_repacked`: whether the weights are in the processor's favourite order."""

    subject: Subject
    path: Path
    threads: int | None
    processors: int
    cores: int
    is_repacked: bool

    @property
    def choices(self) -> Choices:
        """What was configured is no choice."""
        subject = self.subject
        others = () if self.threads else fewer_threads(self.processors, self.cores)
        longest = min(subject.batch_tokens, subject.model.trained_context or subject.batch_tokens)
        return Choices(untuned(self.threads or self.processors, subject.batch_tokens), others, longest)


Tune = Callable[[TuningRequest], Outcome]


def measure(request: TuningRequest) -> Outcome:
    """Within BUDGET_S, give or take a context. Raises RunnerError when the library fails at it."""
    with TimedSteps(request.subject, BUDGET_S) as timings:
        return tune(request.choices, timings)


def find_tuning(
    request: TuningRequest, processor: Processor, remembered: Remembered, measured: Tune = measure
) -> Tuning:
    """As found once per processor, library version, file and settings; by default where it cannot be found, which the
    next start tries again. A build for GPUs is left as it is.
    """
    choices, name = request.choices, request.path.name
    if choices.are_none or request.subject.library.can_offload:
        return choices.default
    key = _key(request, processor)
    known = _parse(remembered.get(key) or "", choices)
    if known is not None:
        logger.info("%s takes %s, as measured at an earlier start", name, known.in_words)
        return known
    began = time.monotonic()
    try:
        outcome = measured(request)
    except RunnerError as error:
        outcome = Outcome(choices.default, str(error), is_final=False)
    if outcome.is_final:
        remembered.put(key, _format(outcome.tuning))
    what_next = "remembered" if outcome.is_final else "to be measured at the next start"
    took = f"{time.monotonic() - began:.1f} s of measuring, {what_next}"
    logger.info("%s takes %s (%s): %s", name, outcome.tuning.in_words, took, outcome.findings)
    return outcome.tuning


def _key(request: TuningRequest, processor: Processor) -> str:
    library, _, kv_type, batch_tokens, _ = request.subject
    parts = {
        "tuning": _rules(),
        "processor": f"{request.processors} {request.cores} {processor.identity}",
        "llama-cpp-python": library.version,
        "threads": request.threads or "any",
        "kv_type": kv_type,
        "batch_tokens": batch_tokens,
        "repacked": request.is_repacked,
        "model": identity(request.path),
    }
    return " ".join(f"{name} {value}" for name, value in parts.items())


def _rules() -> str:
    here = Path(__file__).parent
    return hashlib.sha256(b"\0".join((here / name).read_bytes() for name in _RULES)).hexdigest()[:16]


def _format(tuning: Tuning) -> str:
    return f"{tuning.threads} {tuning.batch_threads} {tuning.micro_batch}"


def _parse(text: str, choices: Choices) -> Tuning | None:
    """None for what these choices do not lead to, as in a file that somebody else wrote into."""
    words = text.split()
    if len(words) != 3 or not all(word.isdecimal() for word in words):
        return None
    tuning = Tuning(*map(int, words))
    return tuning if choices.include(tuning) else None
