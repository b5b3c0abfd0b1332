"""The ModelRunner for GGUF models.

`gpu_layers` is passed on, and a build with CUDA, ROCm or Metal uses it; no GPU path was run in development. The abort
flag interrupts processors only: on a GPU a step runs to its end.
"""

from contextlib import ExitStack
from pathlib import Path

from workers.runners.base import Batch, ForwardResult, Handle, Opened, RunnerBooks, RunnerError, RunnerSpec
from workers.runners.llama_cpp.abort_flag import AbortFlag
from workers.runners.llama_cpp.loading import Experiments, load
from workers.runners.llama_cpp.opened import describe
from workers.runners.llama_cpp.session import Session
from workers.runners.llama_cpp.trial import Trial, run_trial
from workers.runners.llama_cpp.tuned import Tune, measure
from workers.runners.remembered import Remembered, default_cache_file


class LlamaCppRunner:
    """See `ModelRunner`. Stricter than that asks for: after an abort every handle is as it was before the batch.

    A batch that breaks a rule, and a handle that is not in use, are ValueErrors, except that `release` ignores the
    latter.
    """

    def __init__(self, *, cache_file: Path | None = None, trial: Trial = run_trial, tune: Tune = measure) -> None:
        self._cache_file = cache_file
        self._experiments = Experiments(trial, tune)
        self._abort_flag = AbortFlag()
        self._session: Session | None = None

    def open(self, spec: RunnerSpec) -> Opened:
        if self._session is not None:
            raise RunnerError("the runner is open already")
        remembered = Remembered(self._cache_file or default_cache_file())
        with ExitStack() as stack:
            loaded = load(spec, stack, self._abort_flag, remembered, self._experiments)
            session = Session(loaded)
            opened = describe(loaded, session.kv, spec.chat_template, remembered)
            session.stack = stack.pop_all()
        self._session = session
        return opened

    def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.stack.close()

    def create(self) -> Handle | None:
        return self._open_session().table.create()

    def release(self, handle: Handle) -> None:
        session = self._session
        if session is None or not session.table.is_live(handle):
            return
        session.context.clear(session.table.sequence(handle))
        session.kv.truncate(handle.id, 0)
        session.table.release(handle)

    def length(self, handle: Handle) -> int:
        table = self._open_session().table
        table.sequence(handle)
        return int(table.lengths[handle.id])

    def can_fit(self, batch: Batch) -> bool:
        return self._open_session().kv.fits(batch.positions)

    def forward(self, batch: Batch) -> ForwardResult:
        self._abort_flag.clear()
        return self._open_session().forward(batch)

    def fork(self, handle: Handle, num_tokens: int) -> Handle | None:
        session = self._open_session()
        session.check_cut(handle, num_tokens)
        fork = session.table.create()
        if fork is None or num_tokens == 0:
            return fork
        if not session.kv.fork(handle.id, fork.id, num_tokens):
            self.release(fork)
            return None
        session.table.lengths[fork.id] = num_tokens
        return fork

    def truncate(self, handle: Handle, num_tokens: int) -> None:
        self._open_session().truncate(handle, num_tokens)

    def export(self, handle: Handle) -> bytes:
        session = self._open_session()
        return session.context.save(session.table.sequence(handle))

    def import_(self, data: bytes, num_tokens: int) -> Handle | None:
        session = self._open_session()
        if not session.kv.has_room(num_tokens):
            return None
        handle = session.table.create()
        if handle is None:
            return None
        if not session.load(handle, data, num_tokens):
            self.release(handle)
            return None
        return handle

    def books(self) -> RunnerBooks:
        return self._open_session().books()

    def abort(self) -> None:
        self._abort_flag.set()

    def _open_session(self) -> Session:
        if self._session is None:
            raise RunnerError("the runner is not open")
        return self._session
