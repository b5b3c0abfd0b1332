"""Where a call is in the queue, for the comments of its stream."""

import time
from typing import NamedTuple

from producer.edge.calls import Call, Place
from producer.edge.queue_view import LookAt
from schemas.errors import ServingError
from schemas.requests import PriorityClass


class Position(NamedTuple):
    """`own` is the place in the call's class, 1 for the next of it; `above` wait in higher classes and go first."""

    own: int
    above: int

    @property
    def overall(self) -> int:
        return self.own + self.above


async def position_of(call: Call, look: LookAt) -> Position:
    """The place as the deliveries of its class have moved it on; those who came later do not count.

    It never rises by its own class, only by requests of higher ones.
    """
    try:
        if call.place is None:
            own = await look(call.model, call.priority, asked_after=time.monotonic())
        else:
            own = await look(call.model, call.priority)
        above = 0
        for priority in PriorityClass:
            if priority.rank < call.priority.rank:
                above += (await look(call.model, priority)).depth.waiting
    except ServingError:  # the broker is away: nothing moves
        return Position(call.place.position if call.place is not None else 1, 0)
    if call.place is None:
        call.place = Place(max(own.depth.waiting - len(call.parts) + 1, 1), own.num_delivered)
    # By deliveries, as the depth has those behind it too; by the depth where others left before their turn.
    moved_to = call.place.position - max(own.num_delivered - call.place.num_delivered, 0)
    call.place = Place(max(min(moved_to, own.depth.waiting), 1), max(own.num_delivered, call.place.num_delivered))
    return Position(call.place.position, above)
