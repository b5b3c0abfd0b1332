"""The commands of a chat: what begins with a slash."""

from collections.abc import Callable
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple

from ops.chat.conversation import Conversation
from ops.chat.transcript import load, save
from ops.errors import Failure

LEAVE = "Ctrl-D or /exit leaves."


class Argument(Enum):
    """What follows a command, for completion."""

    NONE = auto()
    TEXT = auto()
    MODEL = auto()
    FILE = auto()


class Command(NamedTuple):
    """`run` gets what follows the name and returns what to say, if anything. Raises Failure; EOFError to leave."""

    usage: str
    help: str
    argument: Argument
    run: Callable[[str], str | None]

    @property
    def name(self) -> str:
        return self.usage.split()[0]


class Commands:
    """Acts on one conversation; `retry` has its last question answered again."""

    def __init__(self, conversation: Conversation, retry: Callable[[], None]) -> None:
        self.conversation = conversation
        self._retry = retry
        table = (
            Command("/model [ID]", "go on with another model; list them", Argument.MODEL, self._model),
            Command("/system [TEXT]", "what the model is to be; show it", Argument.TEXT, self._system),
            Command("/save FILE", "keep the conversation in a file", Argument.FILE, self._save),
            Command("/load FILE", "go on with one that was kept", Argument.FILE, self._load),
            Command("/reset", "forget what was said", Argument.NONE, self._reset),
            Command("/retry", "answer the last question again", Argument.NONE, self._answer_again),
            Command("/help", "show this", Argument.NONE, self._help),
            Command("/exit", "leave", Argument.NONE, self._exit),
        )
        self._table = {command.name: command for command in table}

    def names(self) -> list[str]:
        return list(self._table)

    def argument(self, name: str) -> Argument:
        return self._table[name].argument if name in self._table else Argument.NONE

    def run(self, line: str) -> str | None:
        """What a line with a slash does, and what there is to say. Raises Failure, EOFError."""
        name, _, rest = line.strip().partition(" ")
        command = self._table.get(name)
        if command is None:
            raise Failure(f"{name} is unknown; /help lists what there is, and a space before it sends it as text")
        rest = rest.strip()
        if rest and command.argument is Argument.NONE:
            raise Failure(f"{name} takes nothing")
        if not rest and command.argument is Argument.FILE:
            raise Failure(f"name the file: {command.usage}")
        return command.run(rest)

    def _model(self, name: str) -> str | None:
        known = self.conversation.models()
        if not name:
            current = self.conversation.model
            return "\n".join(f"{'*' if each == current else ' '} {each}" for each in known)
        if name != "default" and name not in known:
            raise Failure(f"there is no model {name}; there are {', '.join(known)}")
        self.conversation.model = None if name == "default" else name
        return f"{name} answers from here on"

    def _system(self, text: str) -> str | None:
        if not text:
            return self.conversation.system or "no system message"
        self.conversation.system = text
        return None

    def _save(self, name: str) -> str:
        path = Path(name).expanduser()
        save(path, self.conversation.model, self.conversation.messages)
        return f"saved to {path}"

    def _load(self, name: str) -> str:
        model, messages = load(Path(name).expanduser())
        self.conversation.messages = messages
        if model is not None:
            self.conversation.model = model
        return f"{len(messages)} messages"

    def _reset(self, _: str) -> None:
        self.conversation.reset()

    def _answer_again(self, _: str) -> None:
        self._retry()

    def _help(self, _: str) -> str:
        width = max(len(command.usage) for command in self._table.values())
        lines = [f"{command.usage:<{width}}  {command.help}" for command in self._table.values()]
        lines.append('A \\ at the end of a line goes on in the next, and so does """ up to another """.')
        lines.append(f"Ctrl-C stops an answer. {LEAVE}")
        return "\n".join(lines)

    def _exit(self, _: str) -> None:
        raise EOFError
