"""llama.cpp's lines among ours."""

import logging
import threading
from pathlib import Path

import pytest

from workers.runners.base import RunnerError
from workers.runners.llama_cpp import library
from workers.runners.llama_cpp.library import load_library
from workers.runners.llama_cpp.log import LogRouter
from workers.runners.llama_cpp.model import LlamaModel

DEBUG, INFO, WARN, ERROR, CONT = 1, 2, 3, 4, 5


def test_only_warnings_and_errors_are_seen_by_default(caplog: pytest.LogCaptureFixture) -> None:
    router = LogRouter()
    with caplog.at_level(logging.DEBUG, "inferflux.llama"):
        for level, text in ((DEBUG, b"a\n"), (INFO, b"b\n"), (WARN, b"c\n"), (ERROR, b"d\n")):
            router(level, text)
    seen = [(record.levelno, record.message) for record in caplog.records]
    assert seen == [(logging.DEBUG, "a"), (logging.DEBUG, "b"), (logging.WARNING, "c"), (logging.ERROR, "d")]


def test_a_line_may_come_in_parts(caplog: pytest.LogCaptureFixture) -> None:
    router = LogRouter()
    with caplog.at_level(logging.DEBUG, "inferflux.llama"):
        router(WARN, b"one ")
        router(CONT, b"line\nand ")
        router(CONT, b"another\n")
        router(INFO, b"\n")
        router(INFO, None)
    assert [(record.levelno, record.message) for record in caplog.records] == [
        (logging.WARNING, "one line"),
        (logging.WARNING, "and another"),
    ]


def test_errors_go_to_the_call_that_caused_them(caplog: pytest.LogCaptureFixture) -> None:
    router = LogRouter()
    with router.collect() as errors:
        router(ERROR, b"llama_model_load: error loading model: no tensors\n")
        router(ERROR, b"llama_model_load_from_file_impl: failed to load model\n")
        router(WARN, b"odd\n")
        other = threading.Thread(target=router, args=(ERROR, b"elsewhere\n"))
        other.start()
        other.join()
    assert errors == ["no tensors", "failed to load model"]
    assert [record.message for record in caplog.records] == ["odd", "elsewhere"]


def test_a_quiet_call_says_nothing_by_default(caplog: pytest.LogCaptureFixture) -> None:
    router = LogRouter()
    with router.collect(is_quiet=True):
        router(WARN, b"no slot\n")
    router(WARN, b"odd\n")
    assert [record.message for record in caplog.records] == ["odd"]


@pytest.mark.llama
def test_the_library_writes_nothing_to_the_terminal(
    tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "inferflux.llama"):
        LlamaModel(load_library(), tiny_model).close()
        bad = tmp_path / "bad.gguf"
        bad.write_bytes(b"GGUF")
        with pytest.raises(RunnerError):
            LlamaModel(load_library(), bad)
    assert any("tiny.gguf" in record.message for record in caplog.records)
    assert capfd.readouterr() == ("", "")


def test_a_missing_library_is_one_line_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_loaded", [])
    monkeypatch.setitem(__import__("sys").modules, "llama_cpp", None)
    with pytest.raises(RunnerError, match="make setup"):
        load_library()
