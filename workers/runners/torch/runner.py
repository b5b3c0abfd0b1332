"""The ModelRunner for models that PyTorch computes: Llama-family decoders over pages of KV.

NOTE: the code for GPUs is written to run and nothing of it has run on one.
"""

from workers.runners.base import Batch, ForwardResult, Handle, Opened, RunnerBooks, RunnerError, RunnerSpec
from workers.runners.torch.abort_flag import AbortFlag
from workers.runners.torch.loading import load
from workers.runners.torch.opened import describe
from workers.runners.torch.session import Session


class TorchRunner:
    """See `ModelRunner`. Stricter than that asks for: after an abort every handle is as it was before the batch.

    A batch that breaks a rule, and a handle that is not in use, are ValueErrors, except that `release` ignores the
    latter.
    """

    def __init__(self, *, has_kernel: bool = True) -> None:
        """`has_kernel` False: PyTorch's operations, even where our own kernel would run."""
        self._has_kernel = has_kernel
        self._session: Session | None = None
        self._abort_flag = AbortFlag()

    def open(self, spec: RunnerSpec) -> Opened:
        if self._session is not None:
            raise RunnerError("the runner is open already")
        loaded = load(spec, has_kernel=self._has_kernel)
        opened = describe(loaded, spec.chat_template)
        self._session = loaded.session
        return opened

    def close(self) -> None:
        self._session = None

    def create(self) -> Handle | None:
        return self._open_session().tables.create()

    def release(self, handle: Handle) -> None:
        if self._session is not None:
            self._session.tables.release(handle)

    def length(self, handle: Handle) -> int:
        return self._open_session().tables.length(handle)

    def can_fit(self, batch: Batch) -> bool:
        return self._open_session().can_fit(batch)

    def forward(self, batch: Batch) -> ForwardResult:
        self._abort_flag.clear()
        return self._open_session().forward(batch, self._abort_flag)

    def fork(self, handle: Handle, num_tokens: int) -> Handle | None:
        return self._open_session().fork(handle, num_tokens)

    def truncate(self, handle: Handle, num_tokens: int) -> None:
        self._open_session().tables.truncate(handle, num_tokens)

    def export(self, handle: Handle) -> bytes:
        return self._open_session().export(handle)

    def import_(self, data: bytes, num_tokens: int) -> Handle | None:
        return self._open_session().import_(data, num_tokens)

    def abort(self) -> None:
        self._abort_flag.set()

    def books(self) -> RunnerBooks:
        return self._open_session().tables.books()

    def stage_seconds(self) -> dict[str, float]:
        """What all steps so far have spent, by what they did; empty where our own kernel does not run."""
        return self._open_session().stage_seconds()

    def _open_session(self) -> Session:
        if self._session is None:
            raise RunnerError("the runner is not open")
        return self._session
