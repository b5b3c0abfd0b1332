"""What `inferctl admin models --list` says of the manifest."""

from typing import Any

import pytest

from ops.cli.commands.admin_models import show_list

USED: dict[str, Any] = {"path": "/etc/m.yaml", "used": True, "since": 1, "error": None, "models": ["a"], "skipped": []}


def said(manifest: Any, capsys: pytest.CaptureFixture[str]) -> list[str]:
    show_list({"object": "list", "data": [], "manifest": manifest}, as_json=False)
    return capsys.readouterr().out.splitlines()[1:]


def test_nothing_while_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(None, capsys) == said(USED, capsys) == []


def test_what_is_not_as_it_wants_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    bad = {**USED, "used": False, "error": "models.a.sauce\x1b[2J: unknown", "skipped": [{"id": "b", "reason": "b is"}]}
    skipped, unused = said(bad, capsys)
    assert skipped == "manifest: b is, and left as it is"
    assert unused.startswith("manifest /etc/m.yaml is not used since 19")
    assert unused.endswith(", its models stay: models.a.sauce�[2J: unknown")
