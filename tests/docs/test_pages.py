"""What the pages refer to exists."""

import pkgutil
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Metric

from broker import subjects
from ops.settings.table import MODEL_FIELDS, PLAIN, TABLE
from producer.edge.routes.table import ROUTES
from producer.metrics import EdgeMetrics
from schemas.errors import ErrorCode, error_kind
from tests.docs.pages import (
    ADMIN_GUIDE,
    GUIDE_NAMES,
    GUIDES,
    NAMES,
    PAGES,
    ROOT,
    USER_GUIDE,
    anchors,
    code_spans,
    links,
    read,
)
from workers.metrics import WorkerMetrics

FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir()} | {".ci"}
# Ours, or of a reader's own machine, in examples.
MADE = {".venv/bin", ".venv/bin/python", "nats/server.log"}


each_page = pytest.mark.parametrize("page", PAGES, ids=NAMES)


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), link


@each_page
def test_paths_in_code_spans_exist(page: Path) -> None:
    for span in code_spans(page):
        path = span.rstrip("/")
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)+", path) and path.split("/")[0] in FOLDERS and path not in MADE:
            assert (ROOT / path).exists(), span


@each_page
def test_tests_in_code_spans_exist(page: Path) -> None:
    """A sentence that names its test is only as good as that test."""
    for span in code_spans(page):
        path, _, name = span.partition("::")
        if name:
            assert re.search(rf"^(?:async )?def {name}\(", read(ROOT / path), re.MULTILINE), span


def test_every_row_about_a_fault_names_its_test() -> None:
    rows = [line for line in read(ROOT / "docs/behaviour-under-stress.md").splitlines() if line.startswith("| ")]
    assert len(rows) > 30
    for row in rows:
        assert row.endswith("| test |") or "::test_" in row.split(" | ")[-1], row


@each_page
def test_variables_and_streams_exist(page: Path) -> None:
    known = {name for row in TABLE for name in row.variables}
    known |= {f"{name}_FILE" for row in TABLE if row.secret for name in row.variables}
    known |= {value for name, value in vars(subjects).items() if name.startswith("STREAM_")}
    for name in re.findall(r"\bINFERFLUX_[A-Z0-9_]*[A-Z0-9]\b", read(page)):
        if not name.startswith(("INFERFLUX_TEST_", "INFERFLUX_BUILD_", "INFERFLUX_MODELS__", "INFERFLUX_SERVER__")):
            assert name in known, name


@each_page
def test_settings_exist(page: Path) -> None:
    sections = "|".join(sorted({key.split(".")[0] for key in PLAIN}))
    for span in code_spans(page):
        if re.fullmatch(rf"(?:{sections})(?:\.[a-z_]+)+(?:: \w+)?", span) and not span.endswith(
            (".py", ".json", ".md")
        ):
            assert span.partition(":")[0] in PLAIN, span
        if match := re.fullmatch(r"models\.<id>\.(\w+)", span):
            assert match[1] in MODEL_FIELDS, span


@each_page
def test_error_codes_exist_and_have_that_status(page: Path) -> None:
    for status, code in re.findall(r"\b([45]\d\d) `([a-z_]+)`", read(page)):
        assert error_kind(ErrorCode(code)).status == int(status), code


def test_users_find_every_error_of_their_routes() -> None:
    theirs = [route.handler.operation for route in ROUTES if not route.path.startswith("/v1/admin/")]
    told = set(re.findall(r"\b[45]\d\d `([a-z_]+)`", read(USER_GUIDE)))
    assert {str(code) for operation in theirs for code in operation.errors} <= told


@pytest.mark.parametrize("page", GUIDES, ids=GUIDE_NAMES)
def test_metrics_exist(page: Path) -> None:
    registries = (EdgeMetrics(CollectorRegistry()).registry, WorkerMetrics().registry)
    families = {name for registry in registries for family in registry.collect() for name in exposed(family)}
    for span in code_spans(page):
        if re.fullmatch(r"inferflux_[a-z_]+", span):
            assert span in families, span


def test_the_admin_guide_quotes_logs_as_they_are() -> None:
    quoted = re.findall(r"log, `([^`]+)`", read(ADMIN_GUIDE))
    code = "".join(read(path) for folder in ("producer", "workers", "broker") for path in (ROOT / folder).rglob("*.py"))
    assert len(quoted) >= 5
    for text in quoted:
        assert f'"{text}' in code, text


def exposed(family: Metric) -> tuple[str, str]:
    """A counter's family has no suffix, and its samples do."""
    return family.name, f"{family.name}_total" if family.type == "counter" else family.name


def test_the_table_of_times_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| [^|]+ \| ([\d.]+) (?:s|bytes) \| `([\w.]+)` \|$", read(ROOT / "docs/Architecture.md"), re.M)
    assert len(rows) >= 10
    for value, where in rows:
        assert float(value) == constant(where), where


def constant(where: str) -> Any:
    """The value of a module's constant, or the default of a dataclass's field, by its dotted name."""
    owner, _, name = where.rpartition(".")
    found = pkgutil.resolve_name(owner)
    if is_dataclass(found):
        return next(field.default for field in fields(found) if field.name == name)
    return getattr(found, name)
