"""What is typed at a terminal: editing, history, several lines, completion."""

from collections.abc import Iterable

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.history import History
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.shortcuts import CompleteStyle

from ops.chat.commands import Argument, Commands
from ops.chat.multiline import is_open, joined
from ops.errors import Failure

PROMPT = "> "
GOES_ON = "… "
# How long Tab may take.
_MODELS_S = 1.0


class TerminalLines:
    """Enter sends, unless the text is open; Alt-Enter and pasted lines never do. Tab completes commands."""

    def __init__(self, commands: Commands, history: History) -> None:
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation=GOES_ON,
            history=history,
            completer=_CommandCompleter(commands),
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,
            key_bindings=_bindings(),
        )

    def read(self) -> str:
        """Raises EOFError (Ctrl-D), and KeyboardInterrupt for Ctrl-C when nothing is typed."""
        return joined(self._session.prompt())


class _CommandCompleter(Completer):
    """Names of commands, and what may follow them. Asks for the models when they are needed, in silence."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._paths = PathCompleter(expanduser=True)
        self._models: list[str] = []

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        name, space, begun = document.text_before_cursor.partition(" ")
        if not name.startswith("/"):
            return
        if not space:
            for each in self._commands.names():
                if each.startswith(name):
                    takes_more = self._commands.argument(each) is not Argument.NONE
                    yield Completion(f"{each} " if takes_more else each, -len(name))
            return
        match self._commands.argument(name):
            case Argument.MODEL:
                yield from (Completion(each, -len(begun)) for each in self._known_models() if each.startswith(begun))
            case Argument.FILE:
                yield from self._paths.get_completions(Document(begun), complete_event)

    def _known_models(self) -> list[str]:
        if not self._models:
            try:
                self._models = self._commands.conversation.models(_MODELS_S)
            except Failure:
                return []
        return self._models


def _bindings() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("enter")
    def _send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_open(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def _go_on(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @bindings.add("c-c")
    @bindings.add("<sigint>")
    def _drop(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt, style="class:aborting")

    return bindings
