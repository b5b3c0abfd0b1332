"""What `inferctl top` makes of two readings."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.errors import Failure
from ops.top.growth import Growth
from ops.top.reading import Reading, parse, read
from ops.top.report import report
from ops.top.screen import grids, heading
from tests.support.http_server import Serve, reply

MODELS: list[dict[str, Any]] = [
    {
        "id": "m",
        "default": True,
        "ready": True,
        "backends": [
            {"worker": "w1", "backend": "echo", "slots": 4},
            {"worker": "far", "backend": "torch", "slots": 8},
        ],
    }
]
EARLIER = """\
inferflux_requests_total{endpoint="chat",model="m",code="ok"} 10
inferflux_requests_total{endpoint="chat",model="m",code="queue_full"} 1
inferflux_time_to_first_token_seconds_bucket{model="m",priority="normal",le="0.1"} 5
inferflux_time_to_first_token_seconds_bucket{model="m",priority="normal",le="1.0"} 5
inferflux_time_to_first_token_seconds_bucket{model="m",priority="normal",le="+Inf"} 5
inferflux_completion_tokens_total{model="m",worker="w1"} 100
"""
LATER = """\
inferflux_requests_total{endpoint="chat",model="m",code="ok"} 20
inferflux_requests_total{endpoint="chat",model="m",code="queue_full"} 3
inferflux_live_calls 3
inferflux_time_to_first_token_seconds_bucket{model="m",priority="normal",le="0.1"} 5
inferflux_time_to_first_token_seconds_bucket{model="m",priority="normal",le="1.0"} 15
inferflux_time_to_first_token_seconds_bucket{model="m",priority="normal",le="+Inf"} 15
inferflux_time_to_first_token_seconds_count{model="m",priority="normal"} 15
inferflux_time_to_first_token_seconds_sum{model="m",priority="normal"} 6
inferflux_completion_tokens_total{model="m",worker="w1"} 300
inferflux_worker_slots{model="m",state="busy",worker="w1"} 3
inferflux_queue_depth{model="m",priority="normal"} 2
inferflux_queue_in_hand{model="m",priority="normal"} 3
inferflux_queue_oldest_age_seconds{model="m",priority="normal"} 1.5
inferflux_queue_depth{model="m",priority="high"} 0
python_info{version="3"} 1
"""


def reading(at: float, text: str = "") -> Reading:
    return Reading(at, 1_700_000_000 + at, MODELS, parse(text))


def test_rates_are_of_the_time_between() -> None:
    found = report(reading(0, EARLIER), reading(2, LATER))
    assert found["requests"] == {
        "per_s": 6.0, "live": 3, "tokens_per_s": 0.0, "errors_per_s": 1.0, "errors": {"queue_full": 1.0}
    }  # fmt: skip
    assert found["ttft_s"] == {"mean": 0.4, "p50": 0.55, "p95": 0.955}
    assert found["queue_wait_s"] == {"mean": None, "p50": None, "p95": None}
    high, normal = found["queues"]
    assert (high["priority"], high["in_hand"]) == ("high", None)
    assert normal == {"model": "m", "priority": "normal", "waiting": 2, "in_hand": 3, "oldest_age_s": 1.5}
    far, near = found["workers"]
    assert (far["slots"], far["slots_used"], far["tokens_per_s"]) == (8, None, None)
    assert (near["slots_used"], near["tokens_per_s"], near["batch_size"]) == (3, 100.0, None)
    assert json.loads(json.dumps(found)) == found


def test_a_server_that_began_anew_has_no_negative_rates() -> None:
    growth = Growth(reading(0, LATER), reading(1, EARLIER))
    assert growth.of("requests_total") == 11
    assert growth.rate("completion_tokens_total") == 100


def test_people_see_the_same() -> None:
    found = report(reading(0, EARLIER), reading(2, LATER))
    assert "requests/s 6" in heading(found, "here")[0]
    models, queues, workers = grids(found)
    assert models.rows[0][0] == "m (default)"
    assert queues.rows[1] == ("m", "normal", "2", "3", "1.5 s")
    assert [row[3] for row in workers.rows] == ["-/8", "3/4"]


def test_a_key_that_may_not_see_metrics_sees_the_models(serve: Serve) -> None:
    def answer(request: Any) -> None:
        is_metrics = request.path == "/metrics"
        reply(403 if is_metrics else 200, b"{}" if is_metrics else json.dumps({"data": MODELS}).encode())(request)

    with serve(answer) as client:
        found = report(read(client), read(client))
    assert "scope read" in found["missing"]
    assert (found["requests"]["per_s"], found["queues"], len(found["workers"])) == (None, [], 2)
    assert found["missing"] in heading(found, "here")
    assert grids(found)[0].rows[0][4] == "-"


def test_what_is_no_exposition_is_one_line() -> None:
    with pytest.raises(Failure, match="cannot be read"):
        parse("inferflux_x{ 1\n")


@given(st.lists(st.floats(0.001, 20), min_size=1, max_size=50), st.floats(0.01, 1))
def test_a_quantile_lies_in_the_bucket_of_its_observation(values: list[float], q: float) -> None:
    limits = [0.01, 0.1, 1.0, 10.0, float("inf")]
    lines = [f'inferflux_t_bucket{{le="{limit}"}} {sum(value <= limit for value in values)}' for limit in limits]
    text = "\n".join(lines).replace('"inf"', '"+Inf"') + "\n"
    found = Growth(reading(0), reading(1, text)).quantile("t", q)
    assert found is not None
    observed = sorted(values)[max(0, -int(-q * len(values) // 1) - 1)]
    low, high = (
        max([0.0, *(limit for limit in limits if limit < observed)]),
        min(limit for limit in limits if limit >= observed),
    )
    assert low <= found <= (high if high != float("inf") else low)
