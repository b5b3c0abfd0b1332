"""The page of the documentation that a run writes."""

import shlex
import sys
from pathlib import Path

DEFAULT_PAGE = "docs/benchmarks.md"
_NOTE = (
    "Written by a run of the benchmark, from nothing but that run. Figures of one machine on one day: what counts are"
    " the ratios, since all servers were measured in turn."
)


def write_page(report: str, path: Path) -> None:
    """`report` is a whole one, heading first."""
    heading, _, rest = report.partition("\n\n")
    path.write_text(f"{heading}\n\n{_NOTE}\n\n```sh\n{_typed()}\n```\n\n{rest}")


def _typed() -> str:
    """The command as it was typed, without what names places of one machine."""
    words = [Path(word).name if word.startswith("/") else word for word in sys.argv[1:] if word != "--write-docs"]
    return shlex.join(["python", "-m", "ops.bench", *words])
