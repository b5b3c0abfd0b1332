"""The loop of `inferctl chat --interactive`."""

import contextlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ops.client.chunks import pieces
from ops.client.client import Client
from ops.errors import Failure

PROMPT = "> "
HELP = "/reset forgets the conversation, /help shows this. Ctrl-C stops an answer, Ctrl-D leaves."


class Conversation:
    """Keeps the messages. An answer that was stopped stays among them as far as it came; a failed turn does not."""

    def __init__(
        self, client: Client, path: str, opening: Sequence[dict[str, str]], generation: Mapping[str, Any]
    ) -> None:
        self._client = client
        self._path = path
        self._opening = list(opening)
        self._messages = list(opening)
        self._generation = generation

    def run(self) -> None:
        """Until end of input."""
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  line editing and history for input()
        if sys.stdin.isatty():
            print(HELP)
        while True:
            try:
                line = input(PROMPT if sys.stdin.isatty() else "").strip()
            except KeyboardInterrupt:
                print()
                continue
            except EOFError:
                return
            if line:
                self._take(line)

    def _take(self, line: str) -> None:
        match line:
            case "/help":
                print(HELP)
            case "/reset":
                self._messages = list(self._opening)
            case _ if line.startswith("/"):
                print(f"{line.split()[0]} is unknown. {HELP}")
            case _:
                self._answer(line)

    def _answer(self, line: str) -> None:
        asked = [*self._messages, {"role": "user", "content": line}]
        said: list[str] = []
        chunks = self._client.stream(self._path, {"messages": asked, **self._generation})
        try:
            with contextlib.closing(chunks):
                for chunk in chunks:
                    said.extend(pieces(chunk))
                    print("".join(pieces(chunk)), end="", flush=True)
        except KeyboardInterrupt:
            print(" (stopped)", end="")
        except Failure as failure:
            print(f"error: {failure}", file=sys.stderr)
            return
        print()
        self._messages = [*asked, {"role": "assistant", "content": "".join(said)}]
