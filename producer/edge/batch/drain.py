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
from broker.errors import BrokerError, PayloadTooLarge, StreamFull
from broker.subjects import BATCH_LANES
from producer.edge.audited import note_dropped_line
from producer.edge.batch.errors import Leaving
from producer.edge.batch.holding import Holding
from producer.edge.batch.jobs import Jobs
from producer.edge.batch.line import Answer, Line
from producer.edge.batch.pauses import Pauses, delay_s, turn_delay_s
from producer.edge.batch.turns import Turn, Turns
from producer.edge.errors import error_object
from producer.edge.ids import mint_request_id
from producer.edge.services import Services
from producer.edge.starting import Asked
from producer.metrics import LineOutcome
from schemas.batch import BatchResult, BatchSubmission
from schemas.codec import CodecError
from schemas.errors import ErrorCode, ServingError

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
# A line that we cannot handle, for whatever reason, is given up after so many deliveries.
_MAX_FAULTS = 5
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
        self._queue = BatchQueue(services.connection, on_dropped=lambda reason: self._note_dropped("", reason))
        self._results = BatchResults(services.connection)
        self._jobs = Jobs(services.batch.read_job)
        self._turns = Turns(services.queue.look, self._num_slots)
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
        await self._queue.start()
        holding = asyncio.create_task(self._holding.run(), name="batch leases")
        lanes = [asyncio.create_task(self._serve(lane), name=f"batch lane {lane}") for lane in range(BATCH_LANES)]
        try:
            await asyncio.wait([self._services.drain.begun, *lanes], return_when=asyncio.FIRST_COMPLETED)
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
                await self._give_back(lease)
                raise
            except BrokerError as error:
                await self._put_off(lease, delay_s(lease.num_delivered), str(error))
            except Exception:
                _log.exception("line not begun", seq=lease.stream_seq)
                await self._put_off(lease, delay_s(lease.num_delivered), "fault")

    async def _begin(self, lease: BatchLease) -> None:
        try:
            queued = lease.queued()
        except CodecError as error:
            await self._settle_unreadable(lease, str(error))
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
            self._spawn(lease, self._store(line, line.refused(error)), self._places)
            return
        if (left_s := self._pauses.left_s(lease.tenant, line.model)) > 0:
            await asyncio.sleep(_SKIP_S)
            await self._put_off(lease, delay_s(lease.num_delivered, left_s), "paused")
            return
        try:
            async with asyncio.timeout(_PATIENCE_S):
                turn = await self._turns.take(line.model, len(asked.plan.prompts))
        except TimeoutError:
            await self._put_off(lease, turn_delay_s(lease.num_delivered), "no turn")
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
            await self._drop(lease, "a submission, which this edge cannot read")
        elif self._expanding.locked():
            await self._put_off(lease, _RETRY_S, "others are being expanded")
        else:
            await self._expanding.acquire()
            work = expand(lease.tenant, submission, lease.renew)
            self._spawn(lease, self._ack_after(lease, work), self._expanding)

    async def _settle_unreadable(self, lease: BatchLease, reason: str) -> None:
        address = lease.address()
        if address is None:
            await self._drop(lease, reason)
            return
        error = ServingError(ErrorCode.INVALID_PARAMETER, f"The line cannot be read: {reason}.")
        result = BatchResult(
            **address.model_dump(),
            request_id=mint_request_id(),
            status_code=error.status,
            body=error_object(error),
        )
        await self._queue.publish_result(lease.tenant, result)
        self._services.metrics.batch_lines.labels(str(LineOutcome.FAILED)).inc()
        await lease.ack()

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
                await self._give_back(lease)
            except StreamFull as error:
                self._pauses.note_everything(_FULL_S)
                await self._put_off(lease, delay_s(lease.num_delivered, _FULL_S), str(error))
            except BrokerError as error:
                await self._put_off(lease, delay_s(lease.num_delivered), str(error))
            except Exception:
                _log.exception("line not answered", seq=lease.stream_seq)
                await self._put_off(lease, delay_s(lease.num_delivered), "fault")
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
                self._pauses.note(line.lease.tenant, line.model, error)
                delay = delay_s(line.lease.num_delivered, error.retry_after_s)
                await self._put_off(line.lease, delay, str(error.code))
                return
            answer = line.refused(error)
        except BrokerError:
            raise
        except Exception:
            if line.lease.num_delivered < _MAX_FAULTS:
                raise
            _log.exception("line given up", seq=line.lease.stream_seq)
            answer = line.refused(ServingError(ErrorCode.INTERNAL, "The line could not be handled."))
        await self._store(line, answer)

    async def _store(self, line: Line, answer: Answer) -> None:
        lease, queued = line.lease, line.line
        result = BatchResult(
            job=queued.job,
            index=queued.index,
            custom_id=queued.custom_id,
            request_id=answer.request_id,
            status_code=answer.status,
            body=answer.body,
        )
        is_stored = False
        try:
            try:
                await self._queue.publish_result(lease.tenant, result)
            except PayloadTooLarge:
                error = ServingError(ErrorCode.PAYLOAD_TOO_LARGE, "The answer does not fit into one message.")
                smaller = result.model_copy(update={"status_code": error.status, "body": error_object(error)})
                await self._queue.publish_result(lease.tenant, smaller)
            is_stored = True
        finally:
            line.let_go(answer, is_stored=is_stored)
        outcome = LineOutcome.FAILED if result.is_failed else LineOutcome.DONE
        self._services.metrics.batch_lines.labels(str(outcome)).inc()
        await lease.ack()

    async def _put_off(self, lease: BatchLease, delay_s: float, reason: str) -> None:
        _log.debug("line put off", seq=lease.stream_seq, delay_s=round(delay_s, 2), reason=reason)
        self._services.metrics.batch_lines.labels(str(LineOutcome.PUT_OFF)).inc()
        await lease.nak(delay_s)

    async def _give_back(self, lease: BatchLease) -> None:
        if self._services.connection.is_connected:
            await lease.nak()

    async def _drop(self, lease: BatchLease, reason: str) -> None:
        self._note_dropped(lease.tenant, reason)
        await lease.term()

    def _note_dropped(self, tenant: str, reason: str) -> None:
        _log.warning("line dropped", tenant=tenant, reason=reason)
        self._services.metrics.batch_lines.labels(str(LineOutcome.DROPPED)).inc()
        note_dropped_line(self._services.audit, tenant, reason)

    def _num_slots(self, model: str) -> int:
        return sum(served.slots for served in self._services.models.serving(model))
