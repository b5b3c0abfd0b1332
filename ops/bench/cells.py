"""What can be measured, by the names that `--cells` takes."""

from enum import StrEnum


class Cell(StrEnum):
    """Chats, with a shared prefix, with long prompts, with long answers: loads for every arm. The others are about the
    stack itself, on the echo runner."""

    CHAT = "chat"
    SHARED = "shared"
    LONG_PROMPTS = "long-prompts"
    LONG_ANSWERS = "long-answers"
    OVERHEAD = "overhead"
    THROUGHPUT = "throughput"
    IDLE = "idle"
    BACKLOG = "backlog"


ALL = "all"
SHORT_LOADS = (Cell.CHAT, Cell.SHARED)
DEFAULT = SHORT_LOADS
LONG_LOADS = (Cell.LONG_PROMPTS, Cell.LONG_ANSWERS)
STACK = (Cell.OVERHEAD, Cell.THROUGHPUT, Cell.IDLE, Cell.BACKLOG)
