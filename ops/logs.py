"""One log format for everything in a process, uvicorn and nats too: structlog renders what `logging` collects."""

import asyncio
import contextlib
import logging
import sys
from typing import TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

# Talk about their own business at info; an operator wants what goes wrong.
_QUIET = ("asyncio", "httpcore2", "httpx2", "urllib3", "uvicorn", "uvicorn.error", "uvicorn.access")

# How long a line waits for others.
_GATHER_S = 0.05


def configure(*, level: str, form: str, process: str, stream: TextIO | None = None) -> None:
    """Send all logging of this process to `stream` (stderr): `form` is console or json, `process` names it in JSON."""
    output = sys.stderr if stream is None else stream
    handler = _Gathering(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_shared(),
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(form, process, output)],
        )
    )
    logging.getLogger().handlers = [handler]
    set_level(level)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def set_level(level: str) -> None:
    """From now on the least important lines that are logged are of this level."""
    root = logging.getLogger()
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def _shared() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]


def _rendering(form: str, process: str, output: TextIO) -> list[Processor]:
    if form == "json":
        return [structlog.processors.format_exc_info, _name_process(process), _Json()]
    return [structlog.dev.ConsoleRenderer(colors=output.isatty(), exception_formatter=structlog.dev.plain_traceback)]


def _name_process(process: str) -> Processor:
    def add(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["process"] = process
        return event

    return add


class _Json:
    """One JSON object a line; what JSON does not know is written as its text."""

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> str:
        return orjson.dumps(event, default=str).decode()


class _Gathering(logging.StreamHandler[TextIO]):
    """Writes what an event loop logs a moment later, in one piece: each write wakes whoever reads the other end of the
    pipe, which on a busy machine costs more than the request that is logged. A warning takes along what was held, and
    other threads wait for nothing.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._held: list[str] = []
        self._due_in: asyncio.AbstractEventLoop | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._held.append(self.format(record) + self.terminator)
        except Exception:
            self.handleError(record)
            return
        loop = _running_loop()
        if loop is None or record.levelno >= logging.WARNING:
            self.flush()
        elif self._due_in is not loop:
            self._due_in = loop
            loop.call_later(_GATHER_S, self._end_gathering)

    def flush(self) -> None:
        with self.lock or contextlib.nullcontext():
            held, self._held = self._held, []
            with contextlib.suppress(OSError, ValueError):  # a full disk must not end what goes on without its log
                self.stream.write("".join(held))
                self.stream.flush()

    def _end_gathering(self) -> None:
        self._due_in = None
        self.flush()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
