"""Takes lines of batches while there is nothing better to do, and stores what comes of them."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import structlog

from broker.batch_lease import BatchLease
from broker.batch_queue import BatchQueue
from broker.batch_results import BatchResults
from broker.errors import BrokerError, StreamFull
from broker.subjects import BATCH_LANES
from producer.edge.batch.ends import LineEnds
from producer.edge.batch.errors import Leaving
from producer.edge.batch.holding import Holding
from producer.edge.batch.jobs import Jobs
from producer.edge.batch.line import Line
from producer.edge.batch.pauses import Pauses, delay_s, turn_delay_s
from producer.edge.batch.turns import Turn, Turns
from producer.edge.retry_after import Line as QueueLine
from producer.edge.services import Services
from producer.edge.starting import Asked
from schemas.batch import BatchSubmission
from schemas.codec import CodecError
from schemas.errors import ErrorCode, ServingError
from schemas.requests import PriorityClass

_log = structlog.stdlib.get_logger("inferflux.edge.batch")

# Lines of an edge that wait in the queue, run or are being stored; no more than a quarter of the calls it may hold.
MAX_RUNNING = 64
_SHARE_OF_CALLS = 4
_MAX_EXPANDING = 4
# How long a lane waits for a turn of its first line before it looks at the next one.
_PATIENCE_S = 0.5
# Between lines that would be refused.
_SKIP_S = 0.05
_RETRY_S = 1.0
_LONGEST_RETRY_S = 10.0
# A lane whose lines begin at once asks for several; else those behind the first one are left to other edges.
_SLOW_S = 0.1
_MOST_AHEAD = 8
_FULL_S = 5.0
_LEAVE_S = 5.0


@contextlib.asynccontextmanager
async def draining_batches(services: Services) -> AsyncIterator[None]:
    """While it is open, and until the edge drains."""
    task = asyncio.create_task(BatchDrain(services).run(), name="batches")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class BatchDrain:
    """One for an edge. Lanes take turns, each with one line at hand that is not begun (`Turns`)."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._queue = BatchQueue(services.connection, on_dropped=lambda reason: self._ends.note_dropped("", reason))
        self._ends = LineEnds(services, self._queue)
        self._results = BatchResults(services.connection)
        self._jobs = Jobs(services.batch.read_job)
        self._turns = Turns(services.queue.look, self._is_wanted, self._num_slots)
        self._pauses = Pauses()
        self._holding = Holding()
        most = max(1, min(MAX_RUNNING, services.config.max_concurrent // _SHARE_OF_CALLS))
        self._places = asyncio.Semaphore(most)
        self._expanding = asyncio.Semaphore(_MAX_EXPANDING)
        self._running: set[asyncio.Task[None]] = set()
        self._is_leaving = False

    async def run(self) -> None:
        """Until the edge drains, or cancelled. Then what is not begun goes back; what runs goes on in the queue, and
        whoever gets the line next joins it.
        """
        holding = asyncio.create_task(self._holding.run(), name="batch leases")
        lanes: list[asyncio.Task[None]] = []
        try:
            await self._queue.start()
            lanes += [asyncio.create_task(self._serve(lane), name=f"batch lane {lane}") for lane in range(BATCH_LANES)]
            ended, _ = await asyncio.wait([self._services.drain.begun, *lanes], return_when=asyncio.FIRST_COMPLETED)
            for each in ended:
                each.result()  # a lane never ends by itself
        except Exception:
            _log.exception("no lines are taken any more")
        finally:
            await self._leave(lanes)
            holding.cancel()

    async def _leave(self, lanes: list[asyncio.Task[None]]) -> None:
        self._is_leaving = True
        for lane in lanes:
            lane.cancel()
        await asyncio.gather(*lanes, return_exceptions=True)
        await self._queue.close()
        if self._running:
            await asyncio.wait(self._running, timeout=_LEAVE_S)
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _serve(self, lane: int) -> None:
        pause, most = _RETRY_S, 1
        while True:
            try:
                lease = await self._queue.next(lane, most)
                pause = _RETRY_S
            except BrokerError as error:
                _log.debug("no lines", lane=lane, error=str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_RETRY_S)
                continue
            if lease is None:
                most = 1
                continue
            asked_at = time.monotonic()
            await self._take(lease)
            if time.monotonic() - asked_at < _SLOW_S:
                most = min(2 * most, _MOST_AHEAD)
            else:
                most = 1
                await self._queue.give_back(lane)

    async def _take(self, lease: BatchLease) -> None:
        """Returns once the line is begun, or not to be begun now."""
        if lease.is_overdue:
            return
        with self._holding.hold(lease):
            try:
                await self._begin(lease)
            except asyncio.CancelledError:
                await self._ends.give_back(lease)
                raise
            except BrokerError as error:
                await self._ends.put_off(lease, delay_s(lease.num_delivered), str(error))
            except Exception:  # whatever it is, the lane goes on
                _log.exception("line not begun", seq=lease.stream_seq)
                await self._ends.fault(lease)

    async def _begin(self, lease: BatchLease) -> None:
        try:
            queued = lease.queued()
        except CodecError as error:
            refusal = ServingError(ErrorCode.INVALID_PARAMETER, f"The line cannot be read: {error}.")
            await self._ends.refuse(lease, refusal)
            return
        if isinstance(queued, BatchSubmission):
            await self._begin_expanding(lease, queued)
            return
        if lease.num_delivered > 1 and await self._results.exists(lease.tenant, queued.job, queued.index):
            await lease.ack()
            return
        line = Line(self._services, self._jobs, lease, queued, lambda: self._is_leaving)
        try:
            await line.check()
            asked = line.read()
        except ServingError as error:
            line.note_refusal(error)
            await self._places.acquire()
            self._spawn(lease, self._ends.store(line, line.refused(error)), self._places)
            return
        if (left_s := self._pauses.left_s(line.context.who.owner, line.model)) > 0:
            await asyncio.sleep(_SKIP_S)
            await self._ends.put_off(lease, delay_s(lease.num_delivered, left_s), "paused")
            return
        try:
            async with asyncio.timeout(_PATIENCE_S):
                turn = await self._turns.take(line.model, len(asked.plan.prompts))
        except TimeoutError:
            await self._ends.put_off(lease, turn_delay_s(lease.num_delivered), "no turn")
            return
        try:
            await self._places.acquire()
        except BaseException:
            turn.ended()
            raise
        self._spawn(lease, self._answer(line, asked, turn), self._places)

    async def _begin_expanding(self, lease: BatchLease, submission: BatchSubmission) -> None:
        expand = self._services.batch.expand
        if expand is None:
            await self._ends.drop(lease, "a submission, which this edge cannot read")
        elif self._expanding.locked():
            await self._ends.put_off(lease, _RETRY_S, "others are being expanded")
        else:
            await self._expanding.acquire()
            work = expand(lease.tenant, submission, lease.renew)
            self._spawn(lease, self._ack_after(lease, work), self._expanding)

    def _spawn(self, lease: BatchLease, work: Coroutine[Any, Any, None], places: asyncio.Semaphore) -> None:
        """Go on beside the lane with what has a place."""
        task = asyncio.create_task(self._hold_and(lease, work, places), name=f"batch line {lease.stream_seq}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _hold_and(self, lease: BatchLease, work: Coroutine[Any, Any, None], places: asyncio.Semaphore) -> None:
        with self._holding.hold(lease):
            try:
                await work
            except (Leaving, asyncio.CancelledError):
                await self._ends.give_back(lease)
            except StreamFull as error:
                self._pauses.note_everything(_FULL_S)
                await self._ends.put_off(lease, delay_s(lease.num_delivered, _FULL_S), str(error))
            except BrokerError as error:
                await self._ends.put_off(lease, delay_s(lease.num_delivered), str(error))
            except Exception:
                _log.exception("line not answered", seq=lease.stream_seq)
                await self._ends.fault(lease)
            finally:
                places.release()

    async def _ack_after(self, lease: BatchLease, work: Coroutine[Any, Any, None]) -> None:
        await work
        await lease.ack()

    async def _answer(self, line: Line, asked: Asked, turn: Turn) -> None:
        try:
            try:
                answer = await line.answer(asked, turn)
            finally:
                turn.ended()
        except ServingError as error:
            if error.retryable:
                self._pauses.note(line.context.who.owner, line.model, error)
                delay = delay_s(line.lease.num_delivered, error.retry_after_s)
                await self._ends.put_off(line.lease, delay, str(error.code))
                return
            answer = line.refused(error)
        await self._ends.store(line, answer)

    def _is_wanted(self, model: str) -> bool:
        waiting = self._services.waiting
        for line in (QueueLine(model, each) for each in PriorityClass if each is not PriorityClass.BATCH):
            waiting.drop_started(line)
            if waiting.tokens(line) > 0:
                return True
        return False

    def _num_slots(self, model: str) -> int:
        return sum(served.slots for served in self._services.models.serving(model))
