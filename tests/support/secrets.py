"""Secrets planted where a test can find them again, and the search for them in whatever a process lets out.

A planted secret carries `MARKER`, so one search over the logs of a whole run finds any of them. What processes make for
themselves, such as the pepper and the broker's logins, is read from their data directories and searched for as well.
"""

import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

MARKER = "Zq7planted9X"


class Leak(NamedTuple):
    """A secret where it should not be. `around` shows the place."""

    secret: str
    where: str
    around: str


def planted(kind: str) -> str:
    """A fresh secret of a kind, such as `pepper`."""
    return f"{kind}-{MARKER}-{secrets.token_hex(8)}"


def own_secrets(data_dir: Path) -> dict[str, str]:
    """What processes keep secret in a data directory, by what it is."""
    found = {}
    pepper = data_dir / "pepper"
    if pepper.is_file():
        found["pepper"] = pepper.read_text().strip()
    for path in (data_dir / "nats" / "creds").glob("*"):
        _, told, password = path.read_text(errors="replace").partition("password: ")
        if told:
            found[f"login of {path.name}"] = password.strip()
    return found


def find_leaks(texts: Mapping[str, str | bytes], named: Mapping[str, str], *, marker: bool = True) -> list[Leak]:
    """Which of the secrets `named`, or planted ones at all, stand in any of the texts."""
    needles = {**named, **({"a planted secret": MARKER} if marker else {})}
    return [
        Leak(name, where, around)
        for where, text in texts.items()
        for name, secret in needles.items()
        for around in _places(text if isinstance(text, str) else text.decode(errors="replace"), secret)
    ]


def find_leaks_in_logs(folder: Path) -> list[Leak]:
    """Planted secrets, and those of the data directories there, in every log under a folder."""
    named: dict[str, str] = {}
    for path in folder.rglob("pepper"):
        named |= {f"{name} in {path.parent.name}": secret for name, secret in own_secrets(path.parent).items()}
    return [leak for path, text in _logs(folder) for leak in find_leaks({str(path): text}, named)]


def _logs(folder: Path) -> Iterator[tuple[Path, str]]:
    for path in folder.rglob("*.log"):
        if path.is_file():
            yield path, path.read_text(errors="replace")


def _places(text: str, secret: str) -> Iterable[str]:
    """The first place is enough; the secret itself is cut out of what is shown."""
    place = text.find(secret)
    if place >= 0:
        yield text[max(0, place - 80) : place] + "<here>"
