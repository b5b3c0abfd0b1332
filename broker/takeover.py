"""What a worker that claims a request finds in its journal, and what follows from it. Pure."""

import logging
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from broker.records import Record
from broker.subjects import parse_journal
from schemas.codec import CodecError, decode_event
from schemas.events import Delta, Event, Started
from schemas.fold import Fold

_log = logging.getLogger("inferflux.broker.takeover")


class ClaimOutcome(StrEnum):
    """What a worker has to do with a delivery.

    FRESH: run it. CONTINUE: run it, behind the tokens in `fold`. SETTLED: it has ended; ack. POISONED: it was claimed
    too often without progress; `poison` it. EXPIRED: its journal has lost its beginning; `fail` it.
    """

    FRESH = "fresh"
    CONTINUE = "continue"
    SETTLED = "settled"
    POISONED = "poisoned"
    EXPIRED = "expired"


class Takeover(NamedTuple):
    """The accepted prefix, the fingerprint of the model that wrote its last token, and what to do."""

    fold: Fold
    fingerprint: str | None
    outcome: ClaimOutcome


def judge(records: Sequence[Record], poison_after: int) -> Takeover:
    """Fold a journal up to our claim, which is not among `records`."""
    fold = Fold()
    current: str | None = None
    last_writer: str | None = None
    for record in records:
        event = decode_record(record)
        if event is None:
            continue
        if isinstance(event, Started):
            current = event.fingerprint
        if fold.feed(event, record.seq) and isinstance(event, Delta):
            last_writer = current
    return Takeover(fold, last_writer, _outcome(fold, records, poison_after))


def decode_record(record: Record) -> Event | None:
    """The event of a record, None for what is not one of ours."""
    try:
        return decode_event(record.payload)
    except CodecError as error:
        _log.warning("journal record %d: %s", record.seq, error)
        return None


def _outcome(fold: Fold, records: Sequence[Record], poison_after: int) -> ClaimOutcome:
    if fold.terminal is not None:
        return ClaimOutcome.SETTLED
    if _has_lost_its_beginning(fold, records):
        return ClaimOutcome.EXPIRED
    if fold.claims_without_progress >= poison_after:
        return ClaimOutcome.POISONED
    return ClaimOutcome.CONTINUE if fold.length else ClaimOutcome.FRESH


def _has_lost_its_beginning(fold: Fold, records: Sequence[Record]) -> bool:
    """Whether age or the byte cap has cut the journal, so that the prefix readers accepted is not known any more.

    Not to be taken for lost deltas at the start, which no reader has seen either: there the head is still present.
    """
    if fold.accepted is not None or not records:
        return False
    return parse_journal(records[0].subject).kind == "ev" or (fold.gap and fold.length == 0)
