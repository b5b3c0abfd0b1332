"""A bar on a terminal; nothing anywhere else."""

import io
import sys

import pytest

from ops.cli.bar import Bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with Bar("[red]name", 10) as bar:
        bar.show(5, "half [of] it")
    return stream.getvalue()


def test_a_terminal_sees_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are text, whatever is in them."""
    text = shown(Terminal(), monkeypatch)
    assert "half [of] it" in text and "5/10" in text


def test_a_file_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(io.StringIO(), monkeypatch) == ""
