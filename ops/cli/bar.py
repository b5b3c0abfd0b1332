"""How far something is: a bar on stderr, when that is a terminal, and nothing anywhere else."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


class Bar:
    """A context. `is_bytes`: what is counted are bytes."""

    def __init__(self, text: str, total: int, *, is_bytes: bool = False) -> None:
        self._text = text
        self._total = total
        self._is_bytes = is_bytes
        self._progress: Progress | None = None

    def __enter__(self) -> "Bar":
        if sys.stderr.isatty():
            from rich.markup import escape

            self._progress = self._make()
            self._progress.start()
            self._progress.add_task(escape(self._text), total=self._total)
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, done: int, text: str | None = None) -> None:
        """So much of it is done by now."""
        if self._progress is not None:
            from rich.markup import escape

            description = escape(text) if text is not None else None
            self._progress.update(self._progress.task_ids[0], completed=done, description=description)

    def _make(self) -> "Progress":
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        count = DownloadColumn() if self._is_bytes else MofNCompleteColumn()
        columns = (TextColumn("{task.description}"), BarColumn(), count, TimeElapsedColumn())
        return Progress(*columns, console=Console(stderr=True), transient=True)
