"""The cells about the stack itself, each once at tiny counts, on real processes."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ops.bench.stack.open_loop import arrivals, open_loop
from ops.bench.stack.results import Overhead, Quantiles
from tests.support.counts import full_or


def test_arrivals_are_the_same_for_every_arm_and_come_at_the_rate() -> None:
    times = arrivals(50.0, 5000)
    assert times == arrivals(50.0, 5000) == sorted(times)
    assert times[-1] == pytest.approx(100.0, rel=0.1)


async def test_a_request_that_fails_ends_the_others() -> None:
    cancelled = []

    async def ask(number: int) -> int:
        if number == 3:
            raise LookupError(number)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(number)
            raise
        return number

    with pytest.raises(LookupError):
        await open_loop(1e6, 4, ask)
    assert sorted(cancelled) == [0, 1, 2]


def test_what_is_added_is_the_difference_of_quantiles() -> None:
    through, direct = Quantiles.of([0.010, 0.012, 0.030]), Quantiles.of([0.005, 0.006, 0.007])
    found = Overhead("ours", 50, 3, through, direct, {})
    assert (found.added.p50_ms, found.added.p99_ms) == (pytest.approx(6.0), pytest.approx(23.0, abs=1.0))


@pytest.mark.nats
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_cells_of_the_stack_give_their_figures(tmp_path: Path) -> None:
    cells = full_or("overhead,throughput,idle,backlog", reduced="overhead,backlog")
    command = [sys.executable, "-m", "ops.bench", "--cells", cells, "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=170)
    assert done.returncode == 0, done.stderr
    (record,) = tmp_path.glob("bench-*.json")
    stack = json.loads(record.read_text())["stack"]
    assert stack["failures"] == {}
    assert list(stack["skipped"]) == ["litellm"]
    (overhead,) = stack["overhead"]
    assert (overhead["server"], overhead["num_requests"]) == ("ours", 4)
    assert overhead["added"]["p50_ms"] == overhead["through"]["p50_ms"] - overhead["direct"]["p50_ms"]
    # One or two may lie with the worker when the rest is counted.
    assert 28 <= stack["backlog"]["num_requests"] <= 30
    headings = {
        "overhead": "Latency added",
        "throughput": "Streamed tokens",
        "idle": "Open streams",
        "backlog": "A long",
    }
    for cell in cells.split(","):
        assert f"## {headings[cell]}" in done.stdout
