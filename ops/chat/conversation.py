"""A conversation with a model: what was said, and with which model and settings it goes on."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ops.client.chunks import pieces
from ops.client.client import Client
from ops.client.resuming import OnComment, ResumingStream
from ops.errors import Failure

Message = dict[str, str]

PATH = "/v1/chat/completions"
# Both are short questions that must not hold a prompt up.
_CANCEL_S = 5.0
_MODELS_S = 5.0


class Conversation:
    """An answer that was stopped stays in it as far as it came; a turn that failed does not."""

    def __init__(self, client: Client, opening: Sequence[Message], generation: Mapping[str, Any]) -> None:
        """`generation` holds fields of a request's body, the model's name among them unless it is the default."""
        self._client = client
        self._opening = list(opening)
        self._generation = dict(generation)
        self.messages = list(opening)

    @property
    def model(self) -> str | None:
        """None for the server's default."""
        model: str | None = self._generation.get("model")
        return model

    @model.setter
    def model(self, name: str | None) -> None:
        self._generation.pop("model", None)
        if name is not None:
            self._generation["model"] = name

    @property
    def system(self) -> str | None:
        first = self.messages[:1]
        return first[0]["content"] if first and first[0]["role"] == "system" else None

    @system.setter
    def system(self, text: str) -> None:
        """Holds from the next turn on, and through `reset`."""
        message = {"role": "system", "content": text}
        self._opening = [message, *_without_system(self._opening)]
        self.messages = [message, *_without_system(self.messages)]

    def reset(self) -> None:
        """Back to how it began."""
        self.messages = list(self._opening)

    def models(self, timeout_s: float = _MODELS_S) -> list[str]:
        """Names that may be given as model, ids and aliases. Raises Failure."""
        known = self._client.get("/v1/models", timeout_s)["data"]
        return [name for model in known for name in (model["id"], *(model.get("aliases") or ()))]

    def say(self, text: str, show: Callable[[str], None], on_comment: OnComment) -> bool:
        """Ask, and show the answer as it comes; False when it was interrupted. Raises Failure."""
        return self._ask([*self.messages, {"role": "user", "content": text}], show, on_comment)

    def retry(self, show: Callable[[str], None], on_comment: OnComment) -> bool:
        """Have the last question answered again, in place of its answer. Raises Failure, also when there is none."""
        asked = list(self.messages)
        while asked and asked[-1]["role"] != "user":
            asked.pop()
        if not asked:
            raise Failure("nothing was asked yet")
        return self._ask(asked, show, on_comment)

    def _ask(self, asked: list[Message], show: Callable[[str], None], on_comment: OnComment) -> bool:
        said: list[str] = []
        stream = self._client.generation(on_comment)
        try:
            with contextlib.closing(stream.chunks(PATH, {"messages": asked, **self._generation})) as chunks:
                for chunk in chunks:
                    for piece in pieces(chunk):
                        said.append(piece)
                        show(piece)
            is_whole = True
        except KeyboardInterrupt:
            self._cancel(stream)
            is_whole = False
        self.messages = [*asked, {"role": "assistant", "content": "".join(said)}]
        return is_whole

    def _cancel(self, stream: ResumingStream) -> None:
        """End the work. The server ends it as well when it sees the connection closed, which may be later."""
        if stream.request_id is not None:
            with contextlib.suppress(Failure, KeyboardInterrupt):
                self._client.send("DELETE", f"/v1/requests/{stream.request_id}", timeout_s=_CANCEL_S)


def _without_system(messages: list[Message]) -> list[Message]:
    return [message for message in messages if message["role"] != "system"]
