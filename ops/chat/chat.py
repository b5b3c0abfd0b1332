"""The loop of a chat: read, answer or obey, until its user leaves."""

import sys
from typing import Protocol

import click

from ops.chat.commands import LEAVE, Commands
from ops.chat.conversation import Conversation
from ops.cli.progress import Progress
from ops.cli.terminal_text import safe, shown
from ops.errors import Failure


class Lines(Protocol):
    """Where turns come from."""

    def read(self) -> str:
        """The next turn. Raises EOFError at the end, KeyboardInterrupt when it is asked to stop."""
        ...


class Chat:
    """Answers go to stdout, all else to stderr. `is_lenient`: a turn that fails is said, and the chat goes on."""

    def __init__(self, conversation: Conversation, *, is_lenient: bool) -> None:
        self._conversation = conversation
        self._is_lenient = is_lenient
        self.commands = Commands(conversation, self._retry)

    def run(self, lines: Lines, first: str | None = None) -> None:
        """Until the end; the question `first` before all others. Raises Failure unless lenient."""
        if first is not None:
            self._turn(first, may_command=False)
        while True:
            try:
                self._turn(lines.read())
            except EOFError:
                return
            except KeyboardInterrupt:
                _say(LEAVE)

    def _turn(self, text: str, *, may_command: bool = True) -> None:
        is_command = may_command and text.startswith("/")
        try:
            if is_command:
                said = self.commands.run(text)
                if said is not None:
                    _say(said)
            elif text.strip():
                self._answer(text.strip())
        except Failure as failure:
            if not self._is_lenient and not is_command:
                raise
            _say(f"error: {failure}")

    def _answer(self, text: str) -> None:
        with _Answer() as answer:
            answer.end(self._conversation.say(text, answer.show, answer.progress.comment))

    def _retry(self) -> None:
        with _Answer() as answer:
            answer.end(self._conversation.retry(answer.show, answer.progress.comment))


class _Answer:
    """An answer on its way to stdout, with progress until its first text."""

    def __init__(self) -> None:
        self.progress = Progress("waiting for the model")
        self._has_text = False

    def __enter__(self) -> "_Answer":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def show(self, piece: str) -> None:
        if piece:
            self.progress.stop()
            self._has_text = True
            click.echo(shown(piece), nl=False)

    def end(self, is_whole: bool) -> None:
        self.progress.stop()
        if not is_whole:
            sys.stdout.flush()
            click.echo(" (stopped)" if self._has_text else "(stopped)", nl=False)
        click.echo()


def _say(text: str) -> None:
    click.echo(safe(text), err=True)
