"""Backends by name."""

import pytest

from workers.runners import registry
from workers.runners.base import RunnerError, RunnerSpec
from workers.runners.registry import Backend, available_backends, create_runner


def test_echo_is_always_there() -> None:
    assert available_backends()["echo"] is None
    assert create_runner("echo").open(RunnerSpec("echo", "echo")).facts.description == "echo (repeat)"


def test_an_unknown_backend_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RunnerError, match=r"'ecko'.*echo"):
        create_runner("ecko")


def test_an_absent_backend_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Backend("workers.runners.absent", "Runner", ("surely_not_installed",), "make setup")
    monkeypatch.setitem(registry._BACKENDS, "absent", absent)
    assert available_backends()["absent"] == "surely_not_installed not installed; run: make setup"
    with pytest.raises(RunnerError, match="surely_not_installed not installed; run: make setup"):
        create_runner("absent")


def test_a_backend_that_does_not_import_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._BACKENDS, "odd", Backend("workers.runners.odd", "Runner", (), "make setup"))
    with pytest.raises(RunnerError, match=r"odd cannot be loaded.*make setup"):
        create_runner("odd")
