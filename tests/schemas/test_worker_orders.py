"""What a worker is asked and answers, between releases of different age."""

import json

import pytest

from schemas.worker_orders import Describe, NotAnOrder, WorkerStatus, decode_answer, decode_order, encode_answer

CACHE = {
    **{"enabled": True, "scope": "global", "page_size": 1, "pages": {"free": 8}, "cached_tokens": 0, "entries": 0},
    **{"hits": 0, "misses": 0, "matched_tokens": 0, "evictions": 0},
}
MODEL = {"id": "m", "slots": 2, "busy": 1, "waiting": 0, "free": 1, "cache": CACHE}
STATUS = {
    **{"uptime_s": 1.5, "cordoned": False, "draining": False, "supervised": True, "requests": ["r"]},
    "models": [MODEL],
}


def test_what_a_newer_worker_answers_besides_is_ignored() -> None:
    known = WorkerStatus.model_validate(STATUS)
    newer = {**STATUS, "zone": "north", "models": [{**MODEL, "cache": {**CACHE, "tier": "disk"}}]}
    reply = {"answer": newer, "took_s": 0.1}
    assert decode_answer(json.dumps(reply).encode(), WorkerStatus) == known
    assert decode_answer(encode_answer(known), WorkerStatus) == known


def test_an_order_with_more_than_the_worker_knows_is_refused() -> None:
    assert decode_order(b'{"op": "describe"}') == Describe()
    with pytest.raises(NotAnOrder):
        decode_order(b'{"op": "describe", "deeply": true}')
