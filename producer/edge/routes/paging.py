"""Pages of lists as OpenAI has them: `after` is the id behind which a page begins."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from starlette.responses import Response

from producer.edge.json_response import json_response
from producer.edge.routes.query_values import QueryValues

T = TypeVar("T")
NAMES = ("after", "limit", "order")


async def page(
    values: QueryValues,
    items: Sequence[T],
    id_of: Callable[[T], str],
    describe: Callable[[T], Awaitable[dict[str, Any]]],
    *,
    default: int,
    most: int,
) -> Response:
    """`items` have ids that grow. The newest first unless asked otherwise; an `after` that is gone is no error.

    Raises ServingError (400) naming the parameter.
    """
    after = values.text("after")
    limit = values.integer("limit", default, 1, most)
    is_ascending = values.choice("order", ("desc", "asc")) == "asc"
    if after is not None:
        items = [each for each in items if (id_of(each) > after if is_ascending else id_of(each) < after)]
    ordered = items if is_ascending else items[::-1]
    shown = ordered[:limit]
    return json_response(
        {
            "object": "list",
            "data": await asyncio.gather(*(describe(each) for each in shown)),
            "first_id": id_of(shown[0]) if shown else None,
            "last_id": id_of(shown[-1]) if shown else None,
            "has_more": len(ordered) > limit,
        }
    )
