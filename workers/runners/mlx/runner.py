"""The ModelRunner on mlx-lm's models.

NOTE: written for Apple GPUs, and run on Linux processors alone during development. The abort flag is looked at between
the layers of a prompt's pass, and between the groups of a batch.
"""

import threading
from contextlib import ExitStack

from workers.runners.base import Batch, ForwardResult, Handle, Opened, RunnerBooks, RunnerError, RunnerSpec
from workers.runners.mlx.exported import from_bytes, to_bytes
from workers.runners.mlx.loading import Choices, load
from workers.runners.mlx.opened import describe
from workers.runners.mlx.sequence_kv import SequenceKv
from workers.runners.mlx.session import Session


class MlxRunner:
    """See `ModelRunner`. Stricter than that asks for: after an abort every handle is as it was before the batch.

    A batch that breaks a rule, and a handle that is not in use, are ValueErrors, except that `release` ignores the
    latter.
    """

    def __init__(self, choices: Choices | None = None) -> None:
        self._choices = choices or Choices()
        self._aborted = threading.Event()
        self._stack = ExitStack()
        self._session: Session | None = None

    def open(self, spec: RunnerSpec) -> Opened:
        if self._session is not None:
            raise RunnerError("the runner is open already")
        self._aborted.clear()
        with ExitStack() as stack:
            loaded = load(spec, self._choices, stack, self._aborted.is_set)
            opened = describe(loaded, spec.chat_template)
            self._stack = stack.pop_all()
        self._session = loaded.session
        return opened

    def close(self) -> None:
        self._session = None
        self._stack.close()

    def create(self) -> Handle | None:
        return self._open_session().table.create()

    def release(self, handle: Handle) -> None:
        if self._session is not None:
            self._session.table.release(handle)

    def length(self, handle: Handle) -> int:
        return self._open_session().table.get(handle).length

    def can_fit(self, batch: Batch) -> bool:
        return self._open_session().fits(batch.positions)

    def forward(self, batch: Batch) -> ForwardResult:
        self._aborted.clear()
        return self._open_session().forward(batch)

    def fork(self, handle: Handle, num_tokens: int) -> Handle | None:
        session = self._open_session()
        source = _cuttable(session, handle, num_tokens)
        if not session.has_room(num_tokens) or not session.table.has_free:
            return None
        return session.table.create(source.copy(num_tokens))

    def truncate(self, handle: Handle, num_tokens: int) -> None:
        _cuttable(self._open_session(), handle, num_tokens).truncate(num_tokens)

    def export(self, handle: Handle) -> bytes:
        session = self._open_session()
        return to_bytes(session.table.get(handle), session.layout)

    def import_(self, data: bytes, num_tokens: int) -> Handle | None:
        session = self._open_session()
        if num_tokens > session.plan.context or not session.has_room(num_tokens) or not session.table.has_free:
            return None
        sequence = from_bytes(data, num_tokens, session.layout)
        return None if sequence is None else session.table.create(sequence)

    def abort(self) -> None:
        self._aborted.set()

    def books(self) -> RunnerBooks:
        return self._open_session().table.books()

    def _open_session(self) -> Session:
        if self._session is None:
            raise RunnerError("the runner is not open")
        return self._session


def _cuttable(session: Session, handle: Handle, num_tokens: int) -> SequenceKv:
    """What is behind the handle, if it has so many tokens."""
    sequence = session.table.get(handle)
    if not 0 <= num_tokens <= sequence.length:
        raise ValueError(f"{handle} has {sequence.length} tokens, not {num_tokens}")
    return sequence
