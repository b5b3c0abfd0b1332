"""What the engine has produced and not yet handed over."""

from workers.engine.messages import Completed, Emission, Errored, Tokens


class Outbox:
    """Holds tokens back for a moment, so that those of several steps go in one piece. Used by the engine thread alone.

    Each handing over wakes the event loop, and through it broker and edge: on a machine whose processors all compute,
    that is taken from the next step. An end, an error, and the text of a sequence that has handed none over for
    `interval_s` wait for nothing, so a first word is never late. `interval_s` 0 holds nothing back.
    """

    __slots__ = ("_held", "_interval_s", "_is_urgent", "_spoke_at")

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._held: list[Emission] = []
        self._is_urgent = False
        # When the sequences that spoke within the interval last did.
        self._spoke_at: dict[str, float] = {}

    def add(self, emissions: list[Emission], now: float) -> None:
        """Take what a step produced. `now` is `time.monotonic()`."""
        self._held += emissions
        for emission in emissions:
            if not isinstance(emission, Tokens):
                self._is_urgent |= isinstance(emission, Completed | Errored)
            elif now - self._spoke_at.get(emission.request_id, -self._interval_s) >= self._interval_s:
                self._is_urgent = True

    @property
    def is_due(self) -> bool:
        """Whether something in it should not wait for another step."""
        return self._is_urgent

    def take(self, now: float) -> list[Emission]:
        """Everything held, in order, the tokens of a sequence put together."""
        held, self._held = self._held, []
        self._is_urgent = False
        if self._interval_s > 0:
            since = now - self._interval_s
            self._spoke_at = {name: at for name, at in self._spoke_at.items() if at > since}
            self._spoke_at.update((emission.request_id, now) for emission in held if _has_text(emission))
        return _put_together(held)


def _has_text(emission: Emission) -> bool:
    return isinstance(emission, Tokens) and any(emission.pieces)


def _put_together(emissions: list[Emission]) -> list[Emission]:
    """One emission of tokens for each sequence; its end takes them along."""
    places: dict[str, int] = {}
    result: list[Emission] = []
    for emission in emissions:
        place = places.get(emission.request_id)
        if place is not None and isinstance(emission, Tokens | Completed):
            earlier = result[place]
            assert isinstance(earlier, Tokens)
            result[place] = emission._replace(
                token_ids=earlier.token_ids + emission.token_ids, pieces=earlier.pieces + emission.pieces
            )
            continue
        if isinstance(emission, Tokens):
            places[emission.request_id] = len(result)
        result.append(emission)
    return result
