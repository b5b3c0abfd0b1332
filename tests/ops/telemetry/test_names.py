"""What dashboards and alerts ask for is what real processes show."""

import re

import pytest

from tests.docs.pages import ROOT, read
from tests.ops.telemetry.conftest import Observed
from tests.ops.telemetry.samples import Scrape, scrape_edge
from tests.ops.telemetry.test_rules import expressions
from tests.system.stack import fetch

pytestmark = [pytest.mark.timeout(240), pytest.mark.otel]

_SELECTOR = re.compile(r"\b(inferflux_\w+)(?:\{([^}]*)\})?")
_PARTS = ("_bucket", "_sum", "_count")
# Not of the processes, but of Prometheus.
_ADDED = {"instance", "job"}


@pytest.fixture(scope="module")
def shown(observed: Observed) -> Scrape:
    """After a call, so that what has labels has samples."""
    fetch(
        f"{observed.stack.url}/v1/completions", body={"model": "echo", "prompt": "x", "max_tokens": 3, "stream": True}
    )
    return scrape_edge(observed.stack.url)


def test_every_metric_and_label_that_is_asked_for_exists(shown: Scrape) -> None:
    for where, expression in expressions().items():
        asked = list(_SELECTOR.finditer(expression))
        labels = set(re.findall(r'(\w+)(?:=|!=|=~|!~)"', expression))
        labels |= {label.strip() for group in re.findall(r"\bby \(([^)]*)\)", expression) for label in group.split(",")}
        families = [family_of(shown, match[1]) for match in asked]
        for match, family in zip(asked, families, strict=True):
            assert family in shown.families, f"{where}: {match[1]}"
        if families and not any(family.endswith("guardrail_decisions_total") for family in families):
            known = {label for family in families for label in shown.families[family].labels} | {"le"} | _ADDED
            assert labels <= known, f"{where}: {labels - known}"


def family_of(shown: Scrape, name: str) -> str:
    stems = (name.removesuffix(part) for part in _PARTS if name.endswith(part))
    return next((stem for stem in stems if stem in shown.families), name)


def test_every_recorded_series_that_is_asked_for_is_recorded() -> None:
    asked = {name for text in expressions().values() for name in re.findall(r"\binferflux:[\w:]+", text)}
    assert asked <= set(expressions())


def test_every_metric_is_on_a_panel_or_in_an_alert(shown: Scrape) -> None:
    asked = {family_of(shown, match[1]) for text in expressions().values() for match in _SELECTOR.finditer(text)}
    assert set(shown.families) - asked == set()


def test_the_page_explains_every_metric(shown: Scrape) -> None:
    page = read(ROOT / "docs" / "operate" / "observability.md")
    table = page.partition("| metric,")[2].partition("\n\n")[0]
    explained = set(re.findall(r"^\| `(\w+)", table, re.MULTILINE))
    assert {f"inferflux_{name}" for name in explained} == set(shown.families)
