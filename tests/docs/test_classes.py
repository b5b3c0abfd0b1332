"""No command of a guide escapes the tests: somebody has decided what becomes of each."""

from pathlib import Path

import pytest

from ops.settings.loader import load
from tests.docs.classes import CHECKED, NOT_RUN, RUN, class_of
from tests.docs.pages import GUIDE_NAMES, GUIDES, blocks, languages, shell_commands

# Blocks of these are run, checked or loaded; `text` is for pictures and formats.
LANGUAGES = {"sh", "python", "js", "yaml", "text"}

each_guide = pytest.mark.parametrize("page", GUIDES, ids=GUIDE_NAMES)


@each_guide
def test_every_command_is_in_a_class(page: Path) -> None:
    undecided = [line for line in shell_commands(page) if class_of(line) is None]
    assert undecided == [], "run it, check it, or give a reason why not, in tests/docs/classes.py"


@each_guide
def test_commands_stand_in_blocks_that_are_looked_at(page: Path) -> None:
    assert languages(page) <= LANGUAGES
    programs = {line.split()[0] for line in NOT_RUN} | RUN | CHECKED
    for block in blocks(page, "text"):
        assert not [line for line in block.text.splitlines() if line.removeprefix("$ ").split(" ")[0] in programs]


def test_what_nobody_has_decided_on_is_in_no_class() -> None:
    for line in (
        "nats --context inferflux stream rm",
        "python -m ops.docs",
        "docker compose up",
        "sudo inferctl status",
    ):
        assert class_of(line) is None


def test_no_reason_is_left_of_a_command_that_is_gone() -> None:
    assert set(NOT_RUN) <= {line.strip() for page in GUIDES for line in shell_commands(page)}


@each_guide
def test_configurations_load(page: Path, tmp_path: Path) -> None:
    """Files that a sample names are there: what is in them is the reader's."""
    for name in ("edge.pem", "edge-key.pem", "operator.key"):
        (tmp_path / name).write_text("the-readers-own\n")
    for block in blocks(page, "yaml"):
        config = tmp_path / "server.yaml"
        config.write_text(block.text.replace("/etc/inferflux", str(tmp_path)))
        load({}, {"--config": str(config)})
