"""Merging the metrics of workers into the edge's own: same family, one block, label `worker`. Pure.

It works on the lines: to parse every sample and render it again would hold up streams for as long as many tokens take.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

_log = structlog.stdlib.get_logger("inferflux.edge.metrics")

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
# Ends a text in the OpenMetrics format.
_EOF = "# EOF"


@dataclass(slots=True)
class _Family:
    """`headers` by their kind: HELP, TYPE, UNIT."""

    headers: dict[str, str] = field(default_factory=dict)
    samples: list[str] = field(default_factory=list)


def merge_exposition(own: bytes, workers: Mapping[str, str]) -> bytes:
    """The edge's text with the families of `workers` (text by worker id), all of them in the one format or the other.

    Text that does not parse is left out.
    """
    text = own.decode()
    families = _families(text, None)
    for worker, its_text in workers.items():
        try:
            its_families = _families(its_text, worker)
        except ValueError as error:
            _log.warning("metrics of a worker do not parse", worker=worker, error=str(error))
            continue
        for name, family in its_families.items():
            merged = families.setdefault(name, _Family())
            merged.headers = family.headers | merged.headers
            merged.samples += family.samples
    lines = [line for family in families.values() for line in (*family.headers.values(), *family.samples)]
    if text.rstrip().endswith(_EOF):
        lines.append(_EOF)
    return "".join(f"{line}\n" for line in lines).encode()


def _families(text: str, worker: str | None) -> dict[str, _Family]:
    """Raises ValueError."""
    label = "" if worker is None else f'worker="{_escaped(worker)}"'
    families: dict[str, _Family] = {}
    current, current_name = _Family(), ""
    for line in text.splitlines():
        if line.startswith("# "):
            words = line.split(" ", 3)
            if len(words) > 2 and words[1] in ("HELP", "TYPE", "UNIT"):
                current_name = words[2]
                current = families.setdefault(current_name, _Family())
                current.headers[words[1]] = line
        elif line.strip():
            name = _name_of(line)
            if not current_name or not name.startswith(current_name):
                current_name = name
                current = families.setdefault(name, _Family())
            current.samples.append(_labelled(line, name, label) if label else line)
    return families


def _name_of(line: str) -> str:
    """Of a sample. Raises ValueError on what cannot be one."""
    match = _NAME.match(line)
    if match is None or line[match.end() : match.end() + 1] not in ("{", " "):
        raise ValueError(f"no sample: {line[:80]!r}")
    # Behind the labels, of an exemplar too if there is one, comes a number.
    float(line[match.end() :].rpartition("} ")[2].split()[0])
    return match[0]


def _labelled(line: str, name: str, label: str) -> str:
    rest = line[len(name) :]
    if not rest.startswith("{"):
        return f"{name}{{{label}}}{rest}"
    separator = "" if rest.startswith("{}") else ","
    return f"{name}{{{label}{separator}{rest[1:]}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
