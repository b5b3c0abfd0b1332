"""The tables."""

from dataclasses import replace

from ops.bench.markdown import markdown, table
from ops.bench.turns import Results
from tests.ops.bench.figures import plan, report, summary


def results(*arms: str) -> Results:
    filled = Results()
    for number, arm in enumerate(arms, start=1):
        for load in ("c=1", "c=8"):
            filled.add(arm, summary(100.0 * number, load=load))
    return filled


def test_table_columns_are_aligned() -> None:
    assert table(["arm", "c"], [["ours", "1"], ["it", "32"]]).splitlines() == [
        "| arm  |   c |",
        "| ---- | --: |",
        "| ours |   1 |",
        "| it   |  32 |",
    ]


def test_ours_is_compared_with_every_peer() -> None:
    text = markdown(report(results("ours", "llama-server", "llama-server-unified", "echo")))
    assert "## ours / llama-server\n" in text
    assert "## ours / llama-server-unified\n" in text
    assert "| output tokens/s | 0.50 (0.50–0.50) | 0.50 (0.50–0.50) |" in text
    assert "## ours / echo" not in text


def test_each_of_ours_is_compared() -> None:
    text = markdown(report(results("ours-llama", "ours-torch", "llama-server", "vllm")))
    for pair in ("ours-llama / llama-server", "ours-llama / vllm", "ours-torch / llama-server", "ours-torch / vllm"):
        assert f"## {pair}\n" in text


def test_a_shared_prefix_is_told() -> None:
    shared = replace(report(results("ours")), plan=plan(shared=4))
    assert "load shared c=4: 8 new tokens, all prompts begin with the same 300 words" in markdown(shared)
    assert "shared" not in markdown(report(results("ours")))


def test_circumstances_are_stated() -> None:
    text = markdown(report(results("ours")))
    for part in ("Some CPU", "with avx2; without avx512_bf16, amx_tile", "weights Q4_1", "closed loop", "ours 1.0"):
        assert part in text
    assert "quality not measured" in text
    assert "2 threads, 8 sequences of 256 tokens" in text


def test_every_arm_and_concurrency_has_a_row() -> None:
    rows = [line.split("|")[1:4] for line in markdown(report(results("ours", "echo"))).splitlines() if "| " in line]
    found = {(row[0].strip(), row[1].strip()) for row in rows}
    assert {("ours", "c=1"), ("ours", "c=8"), ("echo", "c=1"), ("echo", "c=8")} <= found


def test_what_was_not_measured_says_why() -> None:
    failed = results("ours")
    failed.failures["llama-server"] = "round 1: it died"
    text = markdown(report(failed, skipped={"echo": "not wanted"}))
    assert "- echo: not wanted" in text
    assert "- llama-server: round 1: it died" in text


def test_an_interrupted_run_says_so() -> None:
    assert "Interrupted" in markdown(report(results("ours"), is_complete=False))
    assert "Interrupted" not in markdown(report(results("ours")))


def test_nothing_measured_is_still_a_report() -> None:
    assert "## Figures" not in markdown(report(Results()))
