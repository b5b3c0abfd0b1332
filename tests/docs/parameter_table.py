"""The README's tables of parameters, from the one table in `producer.edge.parameters`.

`python -m tests.docs.parameter_table` writes them into README.md.
"""

import json
import re
from typing import Any

from producer.edge.parameters import PARAMETERS, Parameter, Support
from schemas.requests import Endpoint
from tests.docs.pages import README

KINDS = {"openai": True, "others": False}
_HEAD = "| parameter | chat | completions | values and notes |\n|---|---|---|---|"
_SHORT = {Endpoint.CHAT: "chat", Endpoint.COMPLETIONS: "completions"}


def render(openai: bool) -> str:
    """One row for each name, with its support at either endpoint."""
    by_name: dict[str, list[Parameter]] = {}
    for parameter in PARAMETERS:
        if parameter.openai is openai:
            by_name.setdefault(parameter.name, []).append(parameter)
    return "\n".join([_HEAD, *(_row(name, entries) for name, entries in by_name.items())])


def between_marks(text: str, kind: str) -> re.Match[str] | None:
    """The place of a table in the README; group 1 is the table."""
    return re.search(rf"(?<=<!-- parameters: {kind} -->\n)(.*?)\n?(?=<!-- /parameters -->)", text, re.DOTALL)


def _row(name: str, entries: list[Parameter]) -> str:
    supports = [_support(entries, endpoint) for endpoint in Endpoint]
    return f"| `{name}` | {' | '.join(supports)} | {_notes(entries)} |"


def _support(entries: list[Parameter], endpoint: Endpoint) -> str:
    found = [entry.support for entry in entries if endpoint in entry.endpoints]
    return str(found[0]) if found else "–"


def _notes(entries: list[Parameter]) -> str:
    notes = [entry.note for entry in entries if entry.note]
    passing = {_values(entry.neutral): entry for entry in entries if entry.support is not Support.SERVED}
    if len(passing) == 1:
        notes += [f"only {values}" for values in passing if values]
    else:
        for values, entry in passing.items():
            where = " and ".join(_SHORT[endpoint] for endpoint in Endpoint if endpoint in entry.endpoints)
            notes.append(f"only {values} ({where})")
    return "; ".join(notes)


def _values(neutral: tuple[Any, ...]) -> str:
    return ", ".join(f"`{json.dumps(value)}`" for value in neutral)


def main() -> None:
    text = README.read_text(encoding="utf-8")
    for kind, openai in KINDS.items():
        place = between_marks(text, kind)
        assert place is not None, f"README.md has no place for the table '{kind}'"
        text = f"{text[: place.start()]}{render(openai)}\n{text[place.end() :]}"
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
