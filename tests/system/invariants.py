"""What must be true of a stack after anything: read from the broker's own records."""

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

from schemas.events import Failed, Finished
from tests.support.waiting import until
from tests.system.broker_state import QueueState, queue_state
from tests.system.callers import Asked, Wrong
from tests.system.journals import Journal, Journals
from tests.system.stack import Stack

# A delivery that died with its worker before it was claimed comes again after its lease.
_SETTLED_S = 60


class Findings(NamedTuple):
    """Numbers to report. `unsubmitted`: heads whose edge died before it queued the request: it was never accepted."""

    journals: int
    takeovers: int
    unsubmitted: int


async def check_invariants(stack: Stack, journals: Journals, asked: Iterable[Asked]) -> Findings:
    """Every accepted request ended once and with its text, and nothing is left in queue or workers. Raises Wrong."""
    try:
        async with asyncio.timeout(_SETTLED_S):
            await until(lambda: _queue_is_empty(stack))
            await until(lambda: busy_slots(stack) == 0)
    except TimeoutError:
        state = await asyncio.to_thread(queue_state, stack)
        raise Wrong(f"after {_SETTLED_S} s there is {state}, and {busy_slots(stack):g} slots are busy") from None
    by_key = {each.key: each for each in asked}
    by_id = {each.arrival.request_id: each for each in by_key.values()}
    heads = await journals.accepted()
    takeovers = unsubmitted = 0
    for request_id, head in heads.items():
        journal = await journals.read(request_id)
        if len(journal.events) == 1:
            unsubmitted += 1
            continue
        _check_end(journal)
        takeovers += len(journal.cuts)
        _check_text(journal, by_key.get(head.idempotency_key or "") or by_id.get(request_id))
    kept = [each for each in by_key.values() if each.arrival.pieces and each.habit != "gives up with its edge"]
    if missing := [str(each) for each in kept if each.arrival.request_id not in heads]:
        raise Wrong(f"answered without a journal: {missing}")
    return Findings(len(heads), takeovers, unsubmitted)


def _check_end(journal: Journal) -> None:
    if len(journal.accepted_ends) != 1:
        raise Wrong(f"request {journal.request_id} has {len(journal.accepted_ends)} ends: {journal.events}")
    by_workers = {
        repr(end) for end in journal.ends if isinstance(end, Finished) or (isinstance(end, Failed) and end.run)
    }
    if len(by_workers) > 1:
        raise Wrong(f"request {journal.request_id} was ended by several workers: {by_workers}")


def _check_text(journal: Journal, asked: Asked | None) -> None:
    """`asked` is None for a request whose client lost its edge before it was told the id."""
    if asked is None:
        return
    text = journal.fold.text()
    is_whole = isinstance(journal.fold.terminal, Finished)
    if text != asked.question.text if is_whole else not asked.question.text.startswith(text):
        raise Wrong(f"request {journal.request_id}: its journal says {text!r}, not {asked.question.text!r}")


async def _queue_is_empty(stack: Stack) -> bool:
    return await asyncio.to_thread(queue_state, stack) == QueueState(0, 0)


def busy_slots(stack: Stack) -> float:
    return sum(
        value
        for name, value in stack.metrics().items()
        if name.startswith("inferflux_worker_slots{") and 'state="busy"' in name
    )
