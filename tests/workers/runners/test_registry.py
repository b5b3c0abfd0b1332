"""Backends by name."""

from pathlib import Path

import pytest

from workers.runners import registry
from workers.runners.base import RunnerError, RunnerSpec
from workers.runners.registry import Backend, create_runner, known_backends


def test_echo_is_always_there() -> None:
    assert known_backends()["echo"].missing() is None
    assert create_runner("echo").open(RunnerSpec("echo", "echo")).facts.description == "echo (repeat)"


def test_an_unknown_backend_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RunnerError, match=r"'ecko'.*echo"):
        create_runner("ecko")


def test_an_absent_backend_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Backend("workers.runners.echo", "EchoRunner", ("surely_not_installed",), "make setup")
    monkeypatch.setitem(registry._BACKENDS, "absent", absent)
    assert known_backends()["absent"].missing() == "surely_not_installed not installed; run: make setup"
    with pytest.raises(RunnerError, match="surely_not_installed not installed; run: make setup"):
        create_runner("absent")


@pytest.mark.parametrize("module", ["workers.runners.echo.nothing", "workers.runners.nowhere.runner"])
def test_a_backend_whose_runner_is_not_part_of_this_version_says_so(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry._BACKENDS, "later", Backend(module, "Runner", (), "make setup"))
    assert known_backends()["later"].missing() == "not available in this version"
    with pytest.raises(RunnerError, match="backend later: not available in this version"):
        create_runner("later")


def test_a_backend_that_does_not_import_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "runner_of_a_broken_install.py").write_text("raise OSError('libgomp.so.1: cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    broken = Backend("runner_of_a_broken_install", "Runner", (), "make setup")
    monkeypatch.setitem(registry._BACKENDS, "broken", broken)
    with pytest.raises(RunnerError, match=r"broken cannot be loaded \(libgomp.*make setup"):
        create_runner("broken")
