"""One format for all lines of a process."""

import asyncio
import io
import json
import logging
import weakref
from collections.abc import Iterator

import pytest
import structlog

from ops.logs import configure


@pytest.fixture(autouse=True)
def logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers, root.level
    yield
    root.handlers, root.level = before
    structlog.reset_defaults()


def test_json_lines_hold_what_was_bound_and_who_speaks() -> None:
    stream = io.StringIO()
    configure(level="info", form="json", process="edge-1", stream=stream)
    logging.getLogger("inferflux.worker").info("started %s", "r1", extra={"request_id": "r1"})
    structlog.stdlib.get_logger("inferflux.edge").warning("ended", request_id="r1", tokens=3)
    logging.getLogger("uvicorn.error").error("boom")
    logging.getLogger("inferflux.worker").debug("not shown")
    first, second, third = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (first["event"], first["request_id"], first["level"], first["process"]) == (
        "started r1",
        "r1",
        "info",
        "edge-1",
    )
    assert (second["event"], second["tokens"], second["logger"]) == ("ended", 3, "inferflux.edge")
    assert third["logger"] == "uvicorn.error"


def test_an_exception_stays_one_json_line() -> None:
    stream = io.StringIO()
    configure(level="info", form="json", process="up", stream=stream)
    try:
        raise ValueError("bad\nthing")
    except ValueError:
        logging.getLogger("x").exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert "ValueError" in json.loads(line)["exception"]


def test_console_lines_are_for_people_and_the_level_counts() -> None:
    stream = io.StringIO()
    configure(level="warning", form="console", process="up", stream=stream)
    logging.getLogger("x").info("quiet")
    logging.getLogger("x").warning("loud", extra={"n": 1})
    (line,) = stream.getvalue().splitlines()
    assert "loud" in line
    assert "n=1" in line
    assert "\x1b" not in line


class _Writes(io.StringIO):
    """Each write by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self.was_written = asyncio.Event()

    def write(self, text: str) -> int:
        self.pieces.append(text)
        self.was_written.set()
        return len(text)


async def test_an_event_loop_writes_its_lines_in_one_piece_soon_after() -> None:
    stream = _Writes()
    configure(level="info", form="json", process="edge-1", stream=stream)
    for number in range(3):
        logging.getLogger("x").info("line %d", number)
    assert stream.pieces == []
    async with asyncio.timeout(5):
        await stream.was_written.wait()
    (piece,) = stream.pieces
    assert [json.loads(line)["event"] for line in piece.splitlines()] == ["line 0", "line 1", "line 2"]
    stream.was_written.clear()
    logging.getLogger("x").info("again")
    async with asyncio.timeout(5):
        await stream.was_written.wait()


async def test_a_warning_waits_for_nothing_and_takes_along_what_does() -> None:
    stream = _Writes()
    configure(level="info", form="json", process="edge-1", stream=stream)
    logging.getLogger("x").info("first")
    logging.getLogger("x").warning("second")
    (piece,) = stream.pieces
    assert [json.loads(line)["event"] for line in piece.splitlines()] == ["first", "second"]


async def test_the_end_of_a_process_takes_along_what_waits() -> None:
    stream = _Writes()
    configure(level="info", form="json", process="edge-1", stream=stream)
    logging.getLogger("x").info("last")
    logging.shutdown([weakref.ref(logging.getLogger().handlers[0])])
    assert "last" in "".join(stream.pieces)
