"""What should be served and who serves it now: live views of the buckets `models` and `workers`."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import ValidationError

from broker.connection import Connection
from broker.documents import Document, read, unknown_fields, written
from broker.errors import WrongSequence
from broker.outcomes import Expect
from broker.presence import Presence
from broker.reader import JournalReader, StartAt
from broker.specs import PRESENCE_TTL_S
from broker.subjects import BUCKET_MODELS, BUCKET_WORKERS, bucket_stream, bucket_subject, decode_token
from schemas.control import ModelCard, ServedModel, WorkerAdvert

__all__ = ["Presence", "Registry"]
_log = logging.getLogger("inferflux.broker.registry")

_SWEEP_S = 1.0
_STALE_S = PRESENCE_TTL_S + 2
_ATTEMPTS = 5
_CATCH_UP_S = 1.0
# On the mark of a deletion: the digest of the configuration that was unloaded.
UNLOADED = "Ifx-Unloaded"
CardChange = Callable[[ModelCard | None], ModelCard | None]


class Registry:
    """Follows both buckets; writes model cards by compare-and-set. `watch_workers=False` leaves the workers' out.

    `models` and `workers` are replaced entry by entry as news come; callbacks run after each change. `unloaded` is what
    was said with a deletion, by model id: the digest of the configuration that is not to be loaded again. `answers`
    asks a worker that has not been heard of: while the broker can store nothing, an entry cannot be renewed.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        watch_workers: bool = True,
        answers: Callable[[str], Awaitable[bool]] | None = None,
    ) -> None:
        self._connection = connection
        self._answers = answers
        self.models: dict[str, ModelCard] = {}
        self.workers: dict[str, WorkerAdvert] = {}
        self.unloaded: dict[str, str] = {}
        self._revisions: dict[str, int] = {}
        self._unknown: dict[str, dict[str, Any]] = {}
        self._seen: dict[str, float] = {}
        self._callbacks: list[Callable[[], None]] = []
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._models = self._reader(BUCKET_MODELS, self._on_model, self._on_models_recreated)
        self._workers = self._reader(BUCKET_WORKERS, self._on_worker, self._forget_workers) if watch_workers else None

    async def start(self) -> None:
        """Attach and wait for what the buckets hold; waits while they do not exist. May be called again."""
        if self._task is not None:
            return
        self._task = asyncio.create_task(self._sweep(), name="registry")
        for reader in self._readers():
            await reader.start()
        for reader in self._readers():
            await reader.caught_up()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        for reader in self._readers():
            await reader.close()

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call back after every change of `models` or `workers`. On the loop; must be quick."""
        self._callbacks.append(callback)

    def resolve(self, name: str | None) -> ModelCard | None:
        """The card for an id, an alias, or None and "default" for the default model; None when unknown."""
        if name is not None:
            if name in self.models:
                return self.models[name]
            for card in self.models.values():
                if name in card.aliases:
                    return card
            if name != "default":
                return None
        defaults = [card for card in self.models.values() if card.default]
        if defaults:
            return max(defaults, key=lambda card: self._revisions[card.id])
        return next(iter(self.models.values())) if len(self.models) == 1 else None

    def serving(self, model_id: str) -> list[ServedModel]:
        """What the live workers that take new requests say about a model."""
        return [
            served
            for advert in self.workers.values()
            if advert.takes_work
            for served in advert.models
            if served.id == model_id
        ]

    def seen_s_ago(self, worker_id: str) -> float:
        """Seconds since a worker was last heard of. Raises KeyError for one that is not there."""
        return time.monotonic() - self._seen[worker_id]

    def slots(self) -> int:
        """Sequences that the whole fleet can run at once."""
        return sum(served.slots for advert in self.workers.values() for served in advert.models)

    async def put_model(self, card: ModelCard) -> None:
        """Write a card if the bucket does not hold it already. A write of somebody else meanwhile is looked at first.

        Raises BrokerUnavailable, WrongSequence when others keep writing.
        """
        await self.change_model(card.id, lambda _: card)

    async def delete_model(self, model_id: str, *, unloaded: str = "") -> None:
        """Remove a card; does nothing when there is none. `unloaded` is remembered. Raises as `put_model` does."""
        await self.change_model(model_id, lambda _: None, unloaded=unloaded)

    async def change_model(self, model_id: str, change: CardChange, *, unloaded: str = "") -> ModelCard | None:
        """Compare and set: write what `change` makes of the card that is there now (None: there is none, or shall be
        none), and return that. `change` is called again when somebody else wrote first, and may raise.

        Raises BrokerUnavailable, WrongSequence when others keep writing.
        """
        subject = bucket_subject(BUCKET_MODELS, model_id)
        for attempt in range(_ATTEMPTS):
            known = self.models.get(model_id)
            card = change(known)
            if card == known:
                break
            payload = written(card, self._unknown.get(model_id, {})) if card is not None else b""
            headers = None if card is not None else {"KV-Operation": "DEL", UNLOADED: unloaded}
            revision = self._revisions.get(model_id, 0)
            try:
                ack = await self._connection.publish_acked(subject, payload, headers=headers, expect=Expect(revision))
            except WrongSequence:
                if attempt == _ATTEMPTS - 1:
                    raise
                await self._wait_for(model_id, revision + 1)
            else:
                await self._wait_for(model_id, ack.seq)
                break
        return card

    async def set_default(self, model_id: str) -> None:
        """Make a model the default, and then the others not. Of two that say so the later counts, so nobody is
        without a default meanwhile. Does nothing for a model that is not there. Raises as `put_model` does.
        """
        if model_id not in self.models:
            return
        await self.change_model(model_id, lambda card: _with_default(card, True))
        for other in [card.id for card in self.models.values() if card.default and card.id != model_id]:
            await self.change_model(other, lambda card: _with_default(card, False))

    async def _wait_for(self, model_id: str, revision: int) -> None:
        """Wait until the view has this revision of a card, or a second."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CATCH_UP_S):
                while self._revisions.get(model_id, 0) < revision:
                    self._news.clear()
                    await self._news.wait()

    def _reader(
        self,
        bucket: str,
        on_entry: Callable[[str, int, bytes | None], None],
        on_recreated: Callable[[], None],
    ) -> JournalReader:
        def on_record(subject: str, seq: int, payload: bytes, headers: dict[str, str] | None) -> None:
            try:
                key = decode_token(subject.split(".", 2)[2])
            except ValueError as error:
                _log.warning("bucket %s: %s", bucket, error)
                return
            is_deletion = headers is not None and _is_deletion(headers)
            if bucket == BUCKET_MODELS:
                self._note_unloaded(key, headers.get(UNLOADED, "") if headers and is_deletion else "")
            on_entry(key, seq, None if is_deletion else payload)

        stream, everything = bucket_stream(bucket), bucket_subject(bucket, ">")
        start = StartAt.last_per_subject()
        return JournalReader(self._connection, stream, everything, on_record, start=start, on_recreated=on_recreated)

    def _readers(self) -> list[JournalReader]:
        return [reader for reader in (self._models, self._workers) if reader is not None]

    def _on_model(self, key: str, seq: int, payload: bytes | None) -> None:
        """A card that cannot be read changes nothing: what it was goes on being served."""
        self._revisions[key] = seq
        card = _parse(ModelCard, key, payload)
        if card is not None or payload is None:
            self._unknown[key] = unknown_fields(ModelCard, payload) if payload is not None else {}
            if self.models.get(key) != card:
                _replace(self.models, key, card)
                self._changed()
        self._news.set()

    def _note_unloaded(self, model_id: str, configured: str) -> None:
        if configured:
            self.unloaded[model_id] = configured
        else:
            self.unloaded.pop(model_id, None)

    def _on_models_recreated(self) -> None:
        self.models.clear()
        self.unloaded.clear()
        self._unknown.clear()
        self._revisions.clear()
        self._changed()

    def _forget_workers(self) -> None:
        self.workers.clear()
        self._seen.clear()

    def _on_worker(self, key: str, seq: int, payload: bytes | None) -> None:
        advert = _parse(WorkerAdvert, key, payload)
        if advert is None:
            self._seen.pop(key, None)
        else:
            self._seen[key] = time.monotonic()
        if self.workers.get(key) != advert:
            _replace(self.workers, key, advert)
            self._changed()

    def _changed(self) -> None:
        for callback in self._callbacks:
            callback()

    async def _sweep(self) -> None:
        """Drop workers that were not heard of: their mark of expiry may have gone while we were away."""
        while self._workers is not None:
            await asyncio.sleep(_SWEEP_S)
            if not self._workers.is_live:
                continue
            limit = time.monotonic() - _STALE_S
            if self._workers.live_since > limit:
                continue
            for worker_id in [key for key in self.workers if self._seen[key] < limit]:
                await self._look_after(worker_id)

    async def _look_after(self, worker_id: str) -> None:
        asked_at = time.monotonic()
        if self._answers is not None and await self._answers(worker_id):
            self._seen[worker_id] = time.monotonic()
        elif self._seen[worker_id] < asked_at and worker_id in self.workers:
            _log.info("worker %s is gone without a word", worker_id)
            del self.workers[worker_id], self._seen[worker_id]
            self._changed()


def _is_deletion(headers: dict[str, str]) -> bool:
    return headers.get("KV-Operation") in ("DEL", "PURGE") or "Nats-Marker-Reason" in headers


def _parse(kind: type[Document], key: str, payload: bytes | None) -> Document | None:
    """The document of an entry; None for a deletion and for what is not one (logged)."""
    if payload is None:
        return None
    try:
        return read(kind, payload)
    except ValidationError as error:
        _log.warning("%s %s: %s", kind.__name__, key, error.errors(include_url=False, include_input=False)[0]["msg"])
        return None


def _replace(documents: dict[str, Document], key: str, document: Document | None) -> None:
    if document is None:
        documents.pop(key, None)
    else:
        documents[key] = document


def _with_default(card: ModelCard | None, is_default: bool) -> ModelCard | None:
    return None if card is None else card.model_copy(update={"default": is_default})
