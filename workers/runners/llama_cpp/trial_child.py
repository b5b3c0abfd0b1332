"""The child process of the trial: load as the runner would, decode one row and a full batch, and be gone."""

import resource
import sys
from pathlib import Path

import numpy as np

from workers.runners.base import RunnerError
from workers.runners.llama_cpp.context import ContextOptions, LlamaContext
from workers.runners.llama_cpp.library import load_library
from workers.runners.llama_cpp.model import LlamaModel
from workers.runners.llama_cpp.sizing import KvPlan
from workers.runners.llama_cpp.tuning import untuned

# Kernels for one row, for a few and for many differ.
_ROWS = (1, 8, 64)


def main(arguments: list[str]) -> int:
    path, layers, threads = arguments
    # It may well crash; nobody wants the core.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    library = load_library()
    try:
        model = LlamaModel(library, Path(path), num_gpu_layers=int(layers) if layers else None)
        plan = KvPlan(context=256, sequences=1, is_unified=False, num_cells=256)
        tuning = untuned(int(threads), batch_tokens=max(_ROWS))
        options = ContextOptions(plan, "f16", tuning, batch_tokens=max(_ROWS), logit_rows=1)
        context = LlamaContext(library, model, options)
    except RunnerError as error:
        print(error, file=sys.stderr)
        return 1
    for num_rows in _ROWS:
        rows = np.arange(num_rows, dtype=np.int32)
        context.decode(rows % context.vocab_size, rows, np.zeros_like(rows), rows[-1:])
        context.clear(0)
    context.close()
    model.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
