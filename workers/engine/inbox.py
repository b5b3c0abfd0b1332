"""What other threads say to the engine thread."""

import contextlib
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from threading import Condition
from typing import NamedTuple

from workers.engine.messages import Completed, Emission, EngineRequest, Errored


class Cancel(NamedTuple):
    request_id: str


class Freed(NamedTuple):
    """Cached KV that was dropped: beginnings of texts, and tokens."""

    entries: int
    tokens: int


class ClearCache(NamedTuple):
    """Drop the cached KV that nobody uses."""

    done: Future[Freed]

    def answer(self, freed: Freed) -> None:
        """To nobody, should whoever asked have left."""
        with contextlib.suppress(InvalidStateError):
            self.done.set_result(freed)

    def fail(self) -> None:
        """The engine ends before it gets to it. Does nothing to one that was answered."""
        with contextlib.suppress(InvalidStateError):
            self.done.set_exception(RuntimeError("the engine has ended"))


Command = EngineRequest | Cancel | ClearCache


class Inbox:
    """Commands in order, and the books of which requests are inside. All methods are safe from any thread.

    `abort` interrupts the forward pass. It is called when every sequence of the running batch is cancelled: then nobody
    loses by it. With others in the batch the pass goes on; the time cap on mixed steps bounds the wait.
    """

    def __init__(self, abort: Callable[[], None]) -> None:
        self._abort = abort
        self._condition = Condition()
        self._commands: list[Command] = []
        self._live: set[str] = set()
        self._cancelled: set[str] = set()  # cancelled, and the engine thread does not know yet
        self._in_flight: frozenset[str] = frozenset()
        self._is_closed = False

    @property
    def num_live(self) -> int:
        """Requests submitted and neither ended nor cancelled."""
        return len(self._live)

    @property
    def in_flight(self) -> frozenset[str]:
        """The requests of the forward pass that runs now."""
        return self._in_flight

    def submit(self, request: EngineRequest) -> None:
        """Raises ValueError when a request of that id is inside or the engine is closed: its ending would be lost."""
        with self._condition:
            if self._is_closed:
                raise ValueError("the engine is closed")
            if request.request_id in self._live:
                raise ValueError(f"request {request.request_id} is in the engine already")
            self._live.add(request.request_id)
            self._commands.append(request)
            self._condition.notify()

    def cancel(self, request_id: str) -> None:
        with self._condition:
            if request_id not in self._live:
                return
            self._live.remove(request_id)
            self._cancelled.add(request_id)
            self._commands.append(Cancel(request_id))
            self._condition.notify()
            if self._in_flight and self._in_flight <= self._cancelled:
                self._abort()

    def clear_cache(self) -> Future[Freed]:
        """The future fails when the engine ends first."""
        command = ClearCache(Future())
        with self._condition:
            if self._is_closed:
                command.fail()
            else:
                self._commands.append(command)
                self._condition.notify()
        return command.done

    def close(self) -> None:
        """Let `take` return None from now on, and cut the running pass short: nobody waits for it any more."""
        with self._condition:
            self._is_closed = True
            for command in self._commands:
                if isinstance(command, ClearCache):
                    command.fail()
            self._condition.notify()
            if self._in_flight:
                self._abort()

    def take(self, *, block: bool) -> list[Command] | None:
        """The commands so far, in order; None once closed. With `block` it waits until there is one or the other."""
        with self._condition:
            while block and not self._commands and not self._is_closed:
                self._condition.wait()
            if self._is_closed:
                return None
            commands, self._commands = self._commands, []
            self._cancelled.clear()
            return commands

    def begin_flight(self, request_ids: frozenset[str]) -> bool:
        """A forward pass for these begins; False when nobody wants it any more."""
        with self._condition:
            if self._is_closed or request_ids <= self._cancelled:
                return False
            self._in_flight = request_ids
            return True

    def end_flight(self) -> None:
        with self._condition:
            self._in_flight = frozenset()

    def settle(self, emissions: list[Emission]) -> list[Emission]:
        """Take what has ended off the books; leave out what belongs to requests cancelled meanwhile."""
        with self._condition:
            if self._cancelled:
                emissions = [emission for emission in emissions if emission.request_id not in self._cancelled]
            for emission in emissions:
                if isinstance(emission, Completed | Errored):
                    self._live.discard(emission.request_id)
            return emissions

    def unsettled(self) -> list[str]:
        """Requests that the engine thread has taken and that have no ending yet."""
        with self._condition:
            waiting = {command.request_id for command in self._commands if isinstance(command, EngineRequest)}
            return [request_id for request_id in self._live if request_id not in waiting]
