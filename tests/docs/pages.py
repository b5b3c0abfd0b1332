"""The pages of the documentation, and what is in them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").rglob("*.md")))
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
USER_GUIDE, ADMIN_GUIDE, DEVELOPER_GUIDE, PRD = (
    ROOT / "docs" / name for name in ("UserGuide.md", "AdminGuide.md", "DeveloperGuide.md", "PRD.md")
)
GUIDES = (README, USER_GUIDE, ADMIN_GUIDE, DEVELOPER_GUIDE, PRD)
GUIDE_NAMES = [str(page.relative_to(ROOT)) for page in GUIDES]

# Guides have `sh` alone, of which every line is looked at.
SHELLS = ("sh", "bash", "console")

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block: its language, its text, and the line its text begins at."""

    language: str
    text: str
    line: int


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[Block]:
    return [block for block in _all_blocks(page) if block.language == language]


def languages(page: Path) -> set[str]:
    return {block.language for block in _all_blocks(page)}


def _all_blocks(page: Path) -> list[Block]:
    text = read(page)
    return [Block(match[1], match[2], text.count("\n", 0, match.start(2)) + 1) for match in _FENCE.finditer(text)]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", read(page))


def links(page: Path) -> list[str]:
    return _LINK.findall(prose(page))


def code_spans(page: Path) -> list[str]:
    return _SPAN.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """Names that `#…` may refer to, made of the headings as code hosts do."""
    titles = _HEADING.findall(prose(page))
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def shell_commands(page: Path) -> Iterator[str]:
    """Command lines of the shell blocks."""
    for language in SHELLS:
        for block in blocks(page, language):
            yield from commands(block)


def commands(block: Block) -> list[str]:
    """Command lines of a shell block, continued lines joined."""
    return [line for line in block.text.replace("\\\n", " ").splitlines() if line.strip()]
