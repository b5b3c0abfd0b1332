"""Whether the processor's matrix extensions work in this build, found out where a crash does no harm.

A llama.cpp built by some compilers dies of SIGSEGV in its AMX code at the first decode. So on a processor with AMX a
child process loads the model and decodes first, and when it dies the model runs without the repacked weights that lead
there.
"""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from workers.runners.machine import Processor
from workers.runners.model_files import identity
from workers.runners.remembered import Remembered

logger = logging.getLogger(__name__)

_TIMEOUT_S = 120.0
_PACKAGE_ROOT = Path(__file__).parents[3]
CHILD_COMMAND = (sys.executable, "-m", "workers.runners.llama_cpp.trial_child")

PASSED = "passed"


class TrialRequest(NamedTuple):
    path: Path
    num_gpu_layers: int | None
    threads: int


class TrialOutcome(NamedTuple):
    """`reason` PASSED, or how the child ended. `is_final`: it will end so every time."""

    reason: str
    is_final: bool

    @property
    def passed(self) -> bool:
        return self.reason == PASSED


Trial = Callable[[TrialRequest], TrialOutcome]


def run_trial(
    request: TrialRequest, child: Sequence[str] = CHILD_COMMAND, timeout_s: float = _TIMEOUT_S
) -> TrialOutcome:
    """Load and decode in a child process. A model that does not load passes: the real load will say why it does not."""
    layers = "" if request.num_gpu_layers is None else str(request.num_gpu_layers)
    command = [*child, str(request.path), layers, str(request.threads)]
    paths = [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    try:
        ended = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s
        )
    except subprocess.TimeoutExpired:
        return TrialOutcome(f"no end after {timeout_s:g} s", is_final=False)
    if ended.returncode < 0:
        return TrialOutcome(_signal_name(-ended.returncode), is_final=True)
    return TrialOutcome(PASSED, is_final=ended.returncode == 0)


def find_trouble(
    request: TrialRequest, processor: Processor, version: str, remembered: Remembered, trial: Trial = run_trial
) -> str | None:
    """How decoding with repacked weights ends in a crash here; None when it does not. Tried once per processor, library
    version and file, and only where the processor has AMX."""
    if not processor.has_amx:
        return None
    layers = "all" if request.num_gpu_layers is None else str(request.num_gpu_layers)
    key = f"trial {processor.identity} llama-cpp-python {version} gpu_layers {layers} {identity(request.path)}"
    reason = remembered.get(key)
    if reason is None:
        outcome = trial(request)
        reason = outcome.reason
        if outcome.is_final:
            remembered.put(key, reason)
    if reason == PASSED:
        return None
    logger.warning(
        "llama.cpp's trial decode ended with %s; %s runs without repacked weights, which is slower"
        " (`make setup` builds a llama-cpp-python that works with AMX)",
        reason,
        request.path.name,
    )
    return reason


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
