"""Is there room to wait? Counted in requests and prompt tokens, per model and class.

The broker's own cap for each subject is the last line of defence.
"""

from collections.abc import Mapping
from typing import NamedTuple

from broker.work_queue import Look
from producer.edge.admission import Admission
from producer.edge.queue_view import ClassState, QueueView
from producer.edge.retry_after import Line, RetryAfter
from producer.edge.waiting import Waiting
from schemas.errors import ErrorCode, ServingError
from schemas.requests import PriorityClass

# At most so many looks before a refusal. Calls share them.
_LOOKS = 3


class _Excess(NamedTuple):
    """How much too much it would be: requests, and tokens."""

    requests: int
    tokens: int

    def __bool__(self) -> bool:
        return self.requests > 0 or self.tokens > 0


class QueueRoom:
    """At most `queue_max` requests wait, and `queue_max_tokens` of their prompts; what can start at once does not count
    as waiting, and a prompt that finds nothing before it may be of any size.

    Room is given away here, by a ticket, and not only looked for: calls that come at once do not get the same place.
    So this is the last stage. A refusal is worth a second look at the queue; passing is not.
    """

    def __init__(self, view: QueueView, waiting: Waiting, retry_after: RetryAfter) -> None:
        self._view = view
        self._waiting = waiting
        self._retry_after = retry_after

    async def __call__(self, admission: Admission) -> None:
        line = Line(admission.model.id, admission.plan.priority)
        self._retry_after.note_arrival(line)
        look = await self._view.glance(line)
        if self._excess(admission, self._view.state(line, look), num_free=0, can_start=0):
            await self._look_again(admission, line)
        admission.ticket = self._waiting.admit(line, admission.prompt_tokens)

    async def _look_again(self, admission: Admission, line: Line) -> None:
        """Raises ServingError unless there is room after all.

        What was submitted just before a look is counted as waiting, and may run already, in a place that then counts
        twice: so a refusal that rests on such requests is worth another look, which sees where they are.
        """
        for num_left in reversed(range(_LOOKS)):
            looks = await self._view.look_again(line.model)
            self._waiting.drop_started(line)
            states = {each: self._view.state(Line(line.model, each), look) for each, look in looks.items()}
            excess = self._excess_at(admission, line.priority, states)
            if not excess:
                return
            if num_left == 0 or not self._waiting.num_unseen(line, looks[line.priority].asked_at):
                raise self._refusal(admission, line, looks, states, excess)

    def _excess_at(
        self, admission: Admission, priority: PriorityClass, states: Mapping[PriorityClass, ClassState]
    ) -> _Excess:
        # What waits in the other classes takes free places too.
        num_free = _num_slots(admission) - sum(state.running for state in states.values())
        num_free -= sum(state.waiting for each, state in states.items() if each is not priority)
        own = states[priority]
        return self._excess(admission, own, max(num_free, 0), can_start=num_free - own.waiting)

    def _excess(self, admission: Admission, own: ClassState, num_free: int, can_start: int) -> _Excess:
        """Beyond the caps, when `num_free` of those in the class are about to start, and `can_start` further ones."""
        model, num_asked = admission.model, len(admission.plan.prompts)
        requests = own.waiting + num_asked - model.queue_max - num_free
        tokens, waiting = 0, self._waiting.tokens(Line(model.id, admission.plan.priority))
        if model.queue_max_tokens and waiting > 0 and num_asked > can_start:
            tokens = waiting + sum(admission.prompt_tokens) - model.queue_max_tokens
        return _Excess(max(requests, 0), max(tokens, 0))

    def _refusal(
        self,
        admission: Admission,
        line: Line,
        looks: Mapping[PriorityClass, Look],
        states: Mapping[PriorityClass, ClassState],
        excess: _Excess,
    ) -> ServingError:
        model, own = admission.model, states[line.priority]
        tokens = self._waiting.tokens(line)
        message = f"The queue of the model '{model.id}' is full: {own.waiting} requests of class '{line.priority}' wait"
        missing = excess.requests
        if excess.tokens:
            message += f", with about {tokens} prompt tokens, where {model.queue_max_tokens} may"
            # So many of those that wait have to start until there is room for the tokens.
            missing = max(missing, -(-excess.tokens * max(own.waiting, 1) // max(tokens, 1)))
        above = sum(look.depth.waiting for each, look in looks.items() if each.rank < line.priority.rank)
        return ServingError(
            ErrorCode.QUEUE_FULL,
            f"{message}.",
            retryable=True,
            retry_after_s=self._retry_after.seconds(
                line, asked=len(admission.plan.prompts), missing=missing, above=above, at_once=model.queue_max
            ),
        )


def _num_slots(admission: Admission) -> int:
    return sum(served.slots for served in admission.serving)
