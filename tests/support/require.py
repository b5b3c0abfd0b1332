"""pytest plug-in: where everything must be there, a skip for want of it is a failure.

`INFERFLUX_TEST_REQUIRE=all` (as CI sets it) or some of the names below, separated by commas. A test needs what its
marks say, or what its skip's reason names. Never a failure: no Docker engine, no GPU, no Metal.
"""

import os
import re
from collections.abc import Generator, Iterable

import pytest

VARIABLE = "INFERFLUX_TEST_REQUIRE"
NAMES = ("nats", "llama", "torch", "mlx", "otel", "node", "chromium", "promtool")
# Packages that are installed together with what is asked for, and tested against it.
TOGETHER = {"torch": ("safetensors", "tokenizers", "transformers", "gguf")}
NEVER = re.compile(r"\b(docker|gpu|cuda|rocm|metal|processor)\b", re.IGNORECASE)


def required() -> frozenset[str]:
    names = {name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()}
    if "all" in names:
        return frozenset(NAMES)
    if unknown := names - set(NAMES):
        raise pytest.UsageError(f"{VARIABLE}: unknown {', '.join(sorted(unknown))}; known are all, {', '.join(NAMES)}")
    return frozenset(names)


def pytest_configure(config: pytest.Config) -> None:
    required()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.get_closest_marker("gpu") is None:
        _fail_if_required(report, (mark.name for mark in item.iter_markers()))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped:
        _fail_if_required(report, ())
    return report


def _fail_if_required(report: pytest.TestReport | pytest.CollectReport, marks: Iterable[str]) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if NEVER.search(reason):
        return
    named = {name for name in NAMES if _is_named(name, reason)}
    missing = required() & (set(marks) | named)
    if missing:
        report.outcome = "failed"
        report.longrepr = f"{VARIABLE} asks for {', '.join(sorted(missing))}, but: {reason}"


def _is_named(name: str, reason: str) -> bool:
    return any(re.search(rf"\b{word}", reason, re.IGNORECASE) for word in (name, *TOGETHER.get(name, ())))
