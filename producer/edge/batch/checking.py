"""Is a file of lines fit to be a batch?"""

import asyncio
from collections.abc import AsyncIterator, Callable
from hashlib import blake2b
from typing import NamedTuple

from producer.edge.batch.lines import LineRefused, read_line, text_lines
from schemas.batch import BatchUrl, LineError
from schemas.errors import ServingError

MAX_LINES = 50_000
# What a check holds: a page of the file, and digests of all names.
HELD_BYTES = 8 << 20
# What is kept of all that is wrong.
MAX_ERRORS = 50
_TURN_LINES = 64


class Checked(NamedTuple):
    """`total` lines that can be queued, unless there are errors."""

    total: int
    errors: tuple[LineError, ...]


class Checker:
    """One file. `check_model` raises ServingError for a model that the caller cannot have.

    `max_line_bytes` is what fits into a message of the broker.
    """

    def __init__(self, url: BatchUrl, max_line_bytes: int, check_model: Callable[[str], None]) -> None:
        self._url = url
        self._max_line_bytes = max_line_bytes
        self._check_model = check_model
        self._models: dict[str, LineRefused | None] = {}
        self._names: set[bytes] = set()
        self._errors: list[LineError] = []

    async def check(self, chunks: AsyncIterator[bytes]) -> Checked:
        """Raises what reading the file raises."""
        total = 0
        try:
            async for number, raw in text_lines(chunks, self._max_line_bytes):
                if total >= MAX_LINES:
                    raise LineRefused("too_many_lines", f"A batch has {MAX_LINES} lines at most.")
                self._check_line(total, number, raw)
                total += 1
                if len(self._errors) >= MAX_ERRORS:
                    break
                if total % _TURN_LINES == 0:
                    await asyncio.sleep(0)
        except LineRefused as refused:
            self._errors.append(refused.as_error(refused.line))
        if not total and not self._errors:
            self._errors.append(LineError(code="empty_file", message="The file has no lines."))
        return Checked(total, tuple(self._errors))

    def _check_line(self, index: int, number: int, raw: bytes) -> None:
        try:
            line = read_line("check", index, raw, self._url, self._max_line_bytes)
            # A digest: ids may be long and there may be many.
            name = blake2b(line.custom_id.encode(), digest_size=16).digest()
            if name in self._names:
                raise LineRefused("duplicate_custom_id", "'custom_id' is that of an earlier line.")
            self._names.add(name)
            if (refused := self._look_at(line.model)) is not None:
                raise refused
        except LineRefused as refused:
            self._errors.append(refused.as_error(number))

    def _look_at(self, model: str) -> LineRefused | None:
        if model not in self._models:
            try:
                self._check_model(model)
                self._models[model] = None
            except ServingError as error:
                self._models[model] = LineRefused(str(error.code), error.message)
        return self._models[model]
