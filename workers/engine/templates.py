"""The sandbox in which chat templates run: what Hugging Face's templates expect, within limits.

Follows `transformers.utils.chat_template_utils`: an immutable sandbox, trimmed blocks, loop controls, the `generation`
tag, `tojson`, `raise_exception` and `strftime_now`. A template comes with the model file, so it is not trusted with
time or memory.
"""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

_TICK = "__tick"
_WIDE_FORMAT = re.compile(r"\d{4}|\*")


class TemplateRefusal(jinja2.TemplateError):
    """The template called `raise_exception`; the text is its own."""


class RenderLimitExceeded(Exception):
    """The template took too long, or made something too large."""


class RenderTooLong(RenderLimitExceeded):
    """The text has more characters than any prompt that fits."""


@dataclass(frozen=True, slots=True)
class RenderLimits:
    max_chars: int
    max_seconds: float


class _GenerationTag(Extension):
    """`{% generation %}…{% endgeneration %}` marks the assistant's text for training; here it is passed through."""

    tags = {"generation"}  # noqa: RUF012 - the type jinja2 declares

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """Compiles templates so that every turn of a loop and every macro call looks at the clock."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self, limits: RenderLimits) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols])
        self._limits = limits
        self._deadline = 0.0
        self.filters["tojson"] = _tojson
        self.globals["raise_exception"] = _raise_exception
        self.globals[_TICK] = self._tick

    def render(self, template: jinja2.Template, values: dict[str, object], now: float) -> str:
        """Render within the limits; `now` (Unix seconds) is the template's clock, in UTC so that all workers agree.

        Raises jinja2.TemplateError, RenderLimitExceeded.
        """
        self._deadline = time.monotonic() + self._limits.max_seconds
        chunks: list[str] = []
        num_chars = 0
        for chunk in template.generate(values, strftime_now=_clock(now)):
            chunks.append(chunk)
            num_chars += len(chunk)
            if num_chars > self._limits.max_chars:
                raise RenderTooLong(f"the rendered messages have more than {self._limits.max_chars} characters")
        return "".join(chunks)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Operators that make large things of small ones."""
        if operator == "*":
            for things, times in ((left, right), (right, left)):
                is_large = isinstance(things, str | list | tuple) and isinstance(times, int)
                if is_large and len(things) * times > self._limits.max_chars:
                    raise RenderLimitExceeded("the chat template repeats something too often")
        elif operator == "%" and isinstance(left, str) and _WIDE_FORMAT.search(left):
            raise RenderLimitExceeded("the chat template formats something too wide")
        elif operator == "**" and (abs(left) > 1 << 32 or abs(right) > 64):
            raise RenderLimitExceeded("the chat template computes too large a power")
        return super().call_binop(context, operator, left, right)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for node in tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock)):
            assert isinstance(node, nodes.For | nodes.Macro | nodes.CallBlock)
            tick = nodes.Call(nodes.Name(_TICK, "load"), [], [], None, None)
            node.body.insert(0, nodes.ExprStmt(tick, lineno=node.lineno))
        return tree

    def _tick(self) -> None:
        if time.monotonic() > self._deadline:
            raise RenderLimitExceeded(f"the chat template ran longer than {self._limits.max_seconds:g} s")


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Unlike jinja2's own, without HTML escapes."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: object) -> NoReturn:
    raise TemplateRefusal(str(message))


def _clock(now: float) -> Callable[[str], str]:
    moment = datetime.fromtimestamp(now, UTC)

    def strftime_now(form: str) -> str:
        return moment.strftime(form)

    return strftime_now
