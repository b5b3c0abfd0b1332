"""From the journals of a call to the bytes of its stream.

A reader holds a cursor for each choice and nothing else: what it has not taken yet stays in the fold, so a slow client
gets larger chunks, not a growing queue. It can begin at any index, which is what resuming needs. The same journal gives
the same text behind each index, whatever was there when; only how it is cut into chunks differs.
"""

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

from producer.edge.calls import Call, Part
from producer.edge.errors import error_of
from producer.edge.output_filter import FilterFactory, OutputFilter, Released, make_filter
from producer.edge.place import beyond_the_end, event_id, is_beyond
from producer.edge.shapes import DONE, Answer, ChunkTemplates, add_usage
from schemas.errors import ServingError
from schemas.events import Cancelled, Failed, Finished, FinishReason, Usage
from schemas.fold import Fold

# Up to so many tokens that wait are sent one by one; a reader that is further behind gets them in one piece.
_MOST_CHUNKS = 16
# An event goes into a connection's buffer whole, so none has much more text than this, and what is sent at once is not
# much longer than that. A reader that is behind takes several times.
_MOST_TEXT = 4096
_MOST_BYTES = 8192


class Chunk(NamedTuple):
    """Text to send, and the last token that is out with it."""

    reached: int
    text: str


class Choice:
    """How far one choice has been read. `index` is the last token whose text went out, -1 for none.

    `start` is the first token whose text the reader wants. It may lie ahead of what is known: nothing is sent until the
    answer has come so far.
    """

    __slots__ = ("_end_index", "_is_cut", "_start", "cursor", "filter", "is_over", "part", "reason")

    def __init__(self, part: Part, output_filter: OutputFilter | None, start: int) -> None:
        self.part = part
        self.filter = output_filter
        # A filter must see the text before the start too, to hold back or end where it did the first time.
        self.cursor = start if output_filter is None else 0
        self.is_over = False
        self.reason = ""
        self._start = start
        self._is_cut = False
        self._end_index: int | None = None

    @property
    def index(self) -> int:
        return max(self.cursor, self._start) - 1 if self._end_index is None else self._end_index

    @property
    def is_cut(self) -> bool:
        """Whether the filter has closed it."""
        return self._is_cut

    @property
    def num_sent(self) -> int:
        return max(self.cursor - self._start, 0)

    @property
    def is_behind(self) -> bool:
        """Whether there is more to take, tokens or an end."""
        fold = self.part.view.fold
        return not self.is_over and (self.cursor < len(fold.pieces) or fold.terminal is not None)

    def take(self, most_text: int | None = None) -> list[Chunk]:
        """What is new since the last call, a chunk for each token, or one for all of them when there are many.

        It stops where there is more than `most_text` characters; more is taken by calling again. Raises ServingError
        when the journal, or a filter, ends in failure, or when there never was such a start.
        """
        fold = self.part.view.fold
        end = fold.length if most_text is None else self._end_within(most_text)
        chunks = self._advance(fold, end) if self.filter is None else self._advance_filtered(self.filter, fold, end)
        if fold.terminal is not None and not self.is_over and self.cursor >= fold.length:
            if is_beyond(fold, self._start, self.filter is not None):
                raise beyond_the_end(fold.length)
            if isinstance(fold.terminal, Finished):
                chunks += self._finish(fold.terminal)
            elif not any(chunk.text for chunk in chunks):
                raise error_of(fold.terminal)
        return chunks

    def _advance(self, fold: Fold, end: int) -> list[Chunk]:
        start = self.cursor
        self.cursor = end = max(start, end)
        if end - start > _MOST_CHUNKS:
            return [Chunk(end - 1, fold.text(start, end))]
        return [Chunk(index, fold.pieces[index]) for index in range(start, end)]

    def _end_within(self, most_text: int) -> int:
        pieces, end = self.part.view.fold.pieces, self.cursor
        length = 0
        while end < len(pieces) and length <= most_text:
            length += len(pieces[end])
            end += 1
        return end

    def _advance_filtered(self, output_filter: OutputFilter, fold: Fold, end: int) -> list[Chunk]:
        chunks = []
        while self.cursor < end and not self.is_over:
            released = output_filter.feed(self.cursor, fold.pieces[self.cursor])
            if self.cursor >= self._start:
                chunks.append(Chunk(self.cursor, released.text))
            self.cursor += 1
            if released.ended is not None:
                self._is_cut = True
                self._end(released.ended)
        if len(chunks) > _MOST_CHUNKS:
            return [Chunk(chunks[-1].reached, "".join(chunk.text for chunk in chunks))]
        return chunks

    def _finish(self, finished: Finished) -> list[Chunk]:
        released = self.filter.flush(self.cursor - 1) if self.filter is not None else Released("")
        self._end(released.ended or finished.reason)
        if not released.text:
            return []
        # One more than the last token, or this text would have the same id as that token's.
        self._end_index = self.cursor
        return [Chunk(self._end_index, released.text)] if self._start <= self._end_index else []

    def _end(self, reason: FinishReason | str) -> None:
        self.is_over = True
        self.reason = str(reason)

    @property
    def usage(self) -> Usage:
        """As the worker counted; of an answer that a filter cut, the tokens that the filter saw."""
        terminal, progress = self.part.view.fold.terminal, self.part.view.progress
        if isinstance(terminal, Finished):
            return terminal.usage._replace(completion_tokens=self.cursor) if self._is_cut else terminal.usage
        return Usage(progress.num_prompt if progress is not None else 0, self.cursor)


class StreamWriter:
    """One reader of a call, as server-sent events. `start`: for each choice the first token that it wants; None begins
    with the role.
    """

    def __init__(self, call: Call, filters: Sequence[FilterFactory] = (), start: Sequence[int] | None = None) -> None:
        self._call = call
        self.last_event_id = event_id(start or ())
        self._templates: ChunkTemplates | None = None
        self._needs_role = start is None
        starts = start or [0] * len(call.parts)
        self._choices = make_choices(call, filters, starts)
        self._written = [False] * len(call.parts)
        self._is_single = len(self._choices) == 1

    @property
    def length(self) -> int:
        """Tokens taken from the first choice."""
        return self._choices[0].cursor

    @property
    def num_tokens(self) -> int:
        """Tokens of all choices that this reader was sent."""
        return sum(choice.num_sent for choice in self._choices)

    @property
    def is_over(self) -> bool:
        return all(self._written)

    @property
    def is_behind(self) -> bool:
        """Whether another `take` has more without waiting."""
        return any(
            choice.is_behind and not written for choice, written in zip(self._choices, self._written, strict=True)
        )

    def ended_early(self) -> list[Part]:
        """Parts whose answer a filter has closed while their worker goes on."""
        return [choice.part for choice in self._choices if choice.is_over and not choice.part.is_over]

    def take(self) -> bytes:
        """Events for everything new, in one piece; empty when there is nothing to tell. Raises ServingError."""
        events = b""
        for index, choice in enumerate(self._choices):
            if self._written[index]:
                continue
            if len(events) >= _MOST_BYTES:
                break
            for reached, text in choice.take(_MOST_TEXT):
                if text:
                    events += self._get_templates().text(index, self._place(choice, reached), text)
            if choice.is_over:
                events += self._get_templates().finish(index, self._place(choice, choice.index), choice.reason)
                self._written[index] = True
        if events and self._needs_role:
            self._needs_role = False
            return self._get_templates().role() + events
        return events

    def end(self) -> bytes:
        """What follows the last chunk."""
        if not self._call.include_usage:
            return DONE
        usage = add_usage(choice.usage for choice in self._choices)
        return self._get_templates().usage(usage) + DONE

    def _get_templates(self) -> ChunkTemplates:
        if self._templates is None:
            self._templates = ChunkTemplates(self._call.rendered_header(), len(self._choices), self._call.include_usage)
        return self._templates

    def _place(self, choice: Choice, reached: int) -> bytes:
        """The id of an event: the last index of each choice, a place in several journals at once."""
        if self._is_single:
            place = str(reached) if reached >= 0 else None
        else:
            place = event_id([(reached if each is choice else each.index) + 1 for each in self._choices])
        if place is None:
            return b""
        self.last_event_id = place
        return place.encode()


def make_choices(call: Call, filters: Sequence[FilterFactory], starts: Sequence[int]) -> list[Choice]:
    return [
        Choice(part, make_filter(filters, call.identity, call.model), start)
        for part, start in zip(call.parts, starts, strict=True)
    ]


class WholeAnswer:
    """One reader of a call who wants all of it at once."""

    def __init__(self, call: Call, filters: Sequence[FilterFactory] = ()) -> None:
        self._choices = make_choices(call, filters, [0] * len(call.parts))
        self._texts = [""] * len(self._choices)

    def is_cut(self) -> bool:
        """Whether a filter has closed what is still open of it: the rest need not be waited for."""
        for place, choice in enumerate(self._choices):
            if choice.filter is not None and choice.is_behind:
                with contextlib.suppress(ServingError):  # raised again when the answer is collected
                    self._take(place)
        return any(choice.is_cut for choice in self._choices) and all(
            choice.is_over or isinstance(choice.part.view.fold.terminal, Finished) for choice in self._choices
        )

    def collect(self) -> list[Answer]:
        """The answers, once all are over or cut. Raises ServingError when one of the parts failed."""
        answers = []
        for place, choice in enumerate(self._choices):
            if not choice.is_over:
                self._take(place)
            terminal = choice.part.view.fold.terminal
            if not choice.is_over and isinstance(terminal, Failed | Cancelled):
                raise error_of(terminal)
            answers.append(Answer(self._texts[place], choice.reason, choice.usage))
        return answers

    def _take(self, place: int) -> None:
        self._texts[place] += "".join(chunk.text for chunk in self._choices[place].take())


def collect_answers(call: Call, filters: Sequence[FilterFactory] = ()) -> list[Answer]:
    """The answers of a call that is over. Raises ServingError when any of its parts failed."""
    return WholeAnswer(call, filters).collect()
