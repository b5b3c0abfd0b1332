"""When a sequence ends, and what text each of its tokens releases."""

from typing import NamedTuple

from schemas.events import FinishReason
from schemas.requests import SamplingParams
from workers.engine.detokenizer import Detokenizer
from workers.engine.stop_strings import StopMatcher
from workers.runners.base import Tokenizer


class Piece(NamedTuple):
    """The text one token released; `reason` when it was the last."""

    text: str
    reason: FinishReason | None = None


class Stopping:
    """Reads one sequence's output tokens in order. A function of the tokens alone: replaying them restores it exactly.

    An end token has no text of its own. It ends the sequence, releasing what was held back; with `ignore_eos` it is
    passed over. A stop string and all after it is cut. At `max_tokens` the last token releases everything.
    """

    __slots__ = ("_detokenizer", "_end_ids", "_ignore_eos", "_matcher", "_max_tokens", "num_tokens")

    def __init__(self, tokenizer: Tokenizer, params: SamplingParams, max_tokens: int) -> None:
        self._detokenizer = Detokenizer(tokenizer)
        self._matcher = StopMatcher(params.stop)
        self._end_ids = tokenizer.end_ids
        self._ignore_eos = params.ignore_eos
        self._max_tokens = max_tokens
        self.num_tokens = 0

    def push(self, token_id: int) -> Piece:
        """Take the next output token. After a piece with a reason nothing may be pushed."""
        self.num_tokens += 1
        text = ""
        if token_id not in self._end_ids:
            text = self._detokenizer.push(token_id)
        elif not self._ignore_eos:
            return self._end("", FinishReason.STOP)
        text, is_match = self._matcher.push(text)
        if is_match:
            return Piece(text, FinishReason.STOP)
        if self.num_tokens >= self._max_tokens:
            return self._end(text, FinishReason.LENGTH)
        return Piece(text)

    def _end(self, text: str, reason: FinishReason) -> Piece:
        tail, is_match = self._matcher.push(self._detokenizer.flush())
        if is_match:
            return Piece(text + tail, FinishReason.STOP)
        return Piece(text + tail + self._matcher.flush(), reason)
