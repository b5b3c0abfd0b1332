"""The library, loaded once per process, when a model is opened and not before."""

import atexit
import importlib
import threading
from typing import Any, NamedTuple

from workers.runners.base import RunnerError
from workers.runners.llama_cpp.log import LogRouter


class Library(NamedTuple):
    """`api` is the module of C functions, untyped; `model.py`, `context.py` and `tokenizer.py` are its typed face."""

    api: Any
    log: LogRouter
    version: str
    log_callback: object

    @property
    def can_offload(self) -> bool:
        """Whether this build can put layers on a GPU."""
        return bool(self.api.llama_supports_gpu_offload())


# llama.cpp's logger and backend registry are global to the process, and so is this.
_lock = threading.Lock()
_loaded: list[Library] = []


def load_library() -> Library:
    """Import, route the log, initialise; later calls return the same. Raises RunnerError when it is not installed."""
    with _lock:
        if not _loaded:
            _loaded.append(_load())
        return _loaded[0]


def _load() -> Library:
    try:
        package = importlib.import_module("llama_cpp")
        api = importlib.import_module("llama_cpp.llama_cpp")
    except ImportError as error:
        raise RunnerError(f"llama-cpp-python is not installed ({error}); `make setup` builds it") from error
    except (OSError, RuntimeError) as error:
        raise RunnerError(f"llama-cpp-python does not load: {error}") from error
    log = LogRouter()
    callback = api.llama_log_callback(log)
    api.llama_log_set(callback, None)
    # A line logged while the interpreter goes down must not end in Python.
    atexit.register(api.llama_log_set, api.llama_log_callback(), None)
    api.llama_backend_init()
    return Library(api, log, str(package.__version__), callback)
