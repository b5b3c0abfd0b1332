"""Ids of files that are never stored: what has come of a batch, written out when somebody reads it."""

import re
from enum import StrEnum
from typing import NamedTuple

_OUTPUT = re.compile(r"file-(batch_[0-9a-f]{32})-(output|errors)")


class ResultKind(StrEnum):
    """Lines that were answered, and lines that came to nothing."""

    OUTPUT = "output"
    ERRORS = "errors"


class OutputName(NamedTuple):
    job: str
    kind: ResultKind


def output_id(job: str, kind: ResultKind) -> str:
    return f"file-{job}-{kind}"


def parse_output_id(file_id: str) -> OutputName | None:
    """None for any other id."""
    match = _OUTPUT.fullmatch(file_id)
    return OutputName(match[1], ResultKind(match[2])) if match is not None else None
