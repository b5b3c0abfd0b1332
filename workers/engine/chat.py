"""Messages to the text a model was trained on, by its own chat template."""

import time
from collections.abc import Sequence
from enum import StrEnum

import jinja2

from schemas.errors import ErrorCode, ServingError
from schemas.requests import ChatMessage, ChatPrompt
from workers.engine.templates import RenderLimitExceeded, RenderLimits, RenderTooLong, TemplateSandbox

# Hugging Face's sentinel, to the letter: some templates look for it.
_CONTINUE_TAG = "CONTINUE_FINAL_MESSAGE_TAG "


class SystemStyle(StrEnum):
    """What a template does with system messages: renders each where it stands; only a leading one; none."""

    ANYWHERE = "anywhere"
    LEADING = "leading"
    NONE = "none"


class ChatTemplate:
    """A model's chat template. Where it cannot express what a client may send, messages are recast so that no text is
    lost:

    - `developer` becomes `system` unless the template knows that role;
    - several system messages become one, in front, when the template refuses or drops the others;
    - system text goes in front of the first user message when the template has no place for it at all.

    What a template does is tried once, with probe messages, when the model is loaded.
    """

    def __init__(self, source: str, bos_token: str, eos_token: str, limits: RenderLimits) -> None:
        """Raises jinja2.TemplateSyntaxError."""
        self._sandbox = TemplateSandbox(limits)
        self._template = self._sandbox.from_string(source)
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._knows_developer = "developer" in source
        self.system_style = self._probe_system_style()

    def render(self, prompt: ChatPrompt, created: int | None = None) -> str:
        """The prompt's text. Raises ServingError(INVALID_PARAMETER), with the template's own words where it has any."""
        messages = self._recast(prompt.messages)
        if not messages:
            raise _invalid("there are no messages")
        now = time.time() if created is None else created
        try:
            if prompt.continue_last:
                return self._render_unclosed(messages, now)
            return self._render(messages, now, add_generation_prompt=True)
        except jinja2.TemplateError as error:
            raise _invalid(f"the model's chat template refuses these messages: {error.message or error!r}") from error
        except RenderTooLong as error:
            raise ServingError(ErrorCode.CONTEXT_LENGTH_EXCEEDED, str(error), param="messages") from error
        except (RenderLimitExceeded, RecursionError) as error:
            raise _invalid(str(error)) from error

    def _render(self, messages: list[ChatMessage], now: float, *, add_generation_prompt: bool) -> str:
        values: dict[str, object] = {
            "messages": [_as_dict(message) for message in messages],
            "add_generation_prompt": add_generation_prompt,
            "tools": None,
            "documents": None,
            **self._tokens,
        }
        return self._sandbox.render(self._template, values, now)

    def _render_unclosed(self, messages: list[ChatMessage], now: float) -> str:
        """Render with a mark after the last message and cut there; a template that trims the mark trims the message."""
        last = messages[-1]
        marked = ChatMessage(last.role, last.content + _CONTINUE_TAG, last.name)
        text = self._render([*messages[:-1], marked], now, add_generation_prompt=False)
        cut = text.rfind(_CONTINUE_TAG.strip())
        if cut < 0:
            raise _invalid("the model's chat template does not let the last message be continued")
        if text.startswith(_CONTINUE_TAG, cut):
            return text[:cut]
        return text[:cut].rstrip()

    def _recast(self, messages: Sequence[ChatMessage]) -> list[ChatMessage]:
        if not self._knows_developer:
            messages = [_as_system(message) if message.role == "developer" else message for message in messages]
        match self.system_style:
            case SystemStyle.ANYWHERE:
                return list(messages)
            case SystemStyle.LEADING:
                return merge_system(messages)
            case SystemStyle.NONE:
                return fold_system(messages)

    def _probe_system_style(self) -> SystemStyle:
        user, answer = ChatMessage("user", "probeuser"), ChatMessage("assistant", "probeanswer")
        first, second = ChatMessage("system", "probefirst"), ChatMessage("system", "probesecond")
        if self._keeps([first, second, user]) and self._keeps([first, user, answer, second, user]):
            return SystemStyle.ANYWHERE
        if self._keeps([user]) and not self._keeps([first, user]):
            return SystemStyle.NONE
        return SystemStyle.LEADING

    def _keeps(self, messages: list[ChatMessage]) -> bool:
        try:
            text = self._render(messages, 0.0, add_generation_prompt=True)
        except (jinja2.TemplateError, RenderLimitExceeded, RecursionError, TypeError, ValueError):
            return False
        return all(message.content in text for message in messages)


def merge_system(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """All system messages as one, in front."""
    system = [message.content for message in messages if message.role == "system"]
    rest = [message for message in messages if message.role != "system"]
    return [ChatMessage("system", "\n\n".join(system)), *rest] if system else rest


def fold_system(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """System text in front of the first user message, or as a user message of its own when there is none."""
    system = [message.content for message in messages if message.role == "system"]
    rest = [message for message in messages if message.role != "system"]
    if not system:
        return rest
    for place, message in enumerate(rest):
        if message.role == "user":
            rest[place] = ChatMessage("user", "\n\n".join([*system, message.content]), message.name)
            return rest
    return [ChatMessage("user", "\n\n".join(system)), *rest]


def _as_system(message: ChatMessage) -> ChatMessage:
    return ChatMessage("system", message.content, message.name)


def _as_dict(message: ChatMessage) -> dict[str, str]:
    values = {"role": message.role, "content": message.content}
    if message.name is not None:
        values["name"] = message.name
    return values


def _invalid(message: str) -> ServingError:
    return ServingError(ErrorCode.INVALID_PARAMETER, message, param="messages")
