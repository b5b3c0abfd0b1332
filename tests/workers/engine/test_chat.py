"""Chat templates: what models bring, and what clients send."""

import pytest

from schemas.errors import ErrorCode, ServingError
from schemas.requests import ChatMessage, ChatPrompt
from workers.engine.chat import ChatTemplate, SystemStyle
from workers.engine.templates import RenderLimits
from workers.runners.echo.tokenizer import CHAT_TEMPLATE

CHATML = CHAT_TEMPLATE
# As Llama 2's: a leading system message goes into the first user message, others are refused.
LEADING = """\
{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set rest = messages[1:] %}\
{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}\
{% for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}\
{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + (system if loop.first else '') + m['content'] + ' [/INST]' }}\
{% else %}{{ ' ' + m['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %}"""
# As Gemma's.
NO_SYSTEM = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}\
{% for m in messages %}{{ '<start_of_turn>' + m['role'] + '\n' + m['content'] | trim + '<end_of_turn>\n' }}\
{% endfor %}"""
# Drops what it does not know without a word.
SILENT = """\
{% for m in messages %}{% if m.role in ('user', 'assistant') %}[{{ m.role }}]{{ m.content }}{% endif %}{% endfor %}"""
DEVELOPER = """{% for m in messages %}{% if m.role == 'developer' %}<dev>{% endif %}{{ m.content }}|{% endfor %}"""


def template(source: str, *, max_chars: int = 10_000, max_seconds: float = 5.0) -> ChatTemplate:
    return ChatTemplate(source, "<s>", "</s>", RenderLimits(max_chars, max_seconds))


def prompt(*turns: tuple[str, str], continue_last: bool = False) -> ChatPrompt:
    return ChatPrompt(tuple(ChatMessage(role, content) for role, content in turns), continue_last)


def render(source: str, *turns: tuple[str, str], continue_last: bool = False) -> str:
    return template(source).render(prompt(*turns, continue_last=continue_last), created=0)


def refusal(source: str, *turns: tuple[str, str], continue_last: bool = False, **limits: float) -> ServingError:
    with pytest.raises(ServingError) as caught:
        template(source, **limits).render(prompt(*turns, continue_last=continue_last))  # type: ignore[arg-type]
    assert caught.value.param == "messages"
    return caught.value


def test_a_conversation_is_rendered_with_the_generation_prompt() -> None:
    text = render(CHATML, ("system", "be brief"), ("user", "hi"))
    assert text == "<s><|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_what_hugging_face_templates_use_is_there() -> None:
    source = """{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}\
{% generation %}{{ {'b': 1, 'a': m.content} | tojson }}{% endgeneration %}{% endfor %}\
{{ strftime_now('%Y-%m-%d') }}{{ tools is none }}{{ {'é<': 1} | tojson(indent=2) }}"""
    text = template(source).render(prompt(("user", "<é>"), ("user", "no")), created=86_400)
    assert text == '{"b": 1, "a": "<é>"}1970-01-02True{\n  "é<": 1\n}'


def test_the_clock_is_the_requests_so_that_a_resumed_one_renders_the_same() -> None:
    source = "{{ strftime_now('%H:%M:%S') }}{{ messages[0].content }}"
    assert template(source).render(prompt(("user", "x")), created=3_723) == "01:02:03x"


def test_a_refusal_carries_the_templates_own_words() -> None:
    error = refusal(LEADING, ("user", "a"), ("user", "b"))
    assert error.code is ErrorCode.INVALID_PARAMETER
    assert "roles must alternate" in error.message


@pytest.mark.parametrize(
    ("source", "style"),
    [
        (CHATML, SystemStyle.ANYWHERE),
        (LEADING, SystemStyle.LEADING),
        (NO_SYSTEM, SystemStyle.NONE),
        (SILENT, SystemStyle.NONE),
    ],
)
def test_no_system_text_is_lost_whatever_the_template_does_with_it(source: str, style: SystemStyle) -> None:
    assert template(source).system_style is style
    text = render(
        source, ("system", "one"), ("developer", "two"), ("user", "ask"), ("assistant", "yes"), ("user", "go")
    )
    assert [text.count(word) for word in ("one", "two", "ask", "yes", "go")] == [1] * 5
    later = render(source, ("user", "ask"), ("assistant", "yes"), ("system", "late"), ("user", "go"))
    assert later.count("late") == 1


def test_system_text_alone_becomes_a_user_message_where_there_is_no_system_role() -> None:
    assert render(SILENT, ("system", "one")) == "[user]one"


def test_developer_is_system_unless_the_template_knows_it() -> None:
    assert "<|im_start|>system\nrule" in render(CHATML, ("developer", "rule"), ("user", "hi"))
    assert render(DEVELOPER, ("developer", "rule"), ("user", "hi")) == "<dev>rule|hi|"


def test_the_last_message_goes_on_unclosed() -> None:
    text = render(CHATML, ("user", "hi"), ("assistant", "The answer is "), continue_last=True)
    assert text.endswith("<|im_start|>assistant\nThe answer is ")


def test_a_template_that_trims_has_the_continued_message_trimmed_too() -> None:
    text = render(NO_SYSTEM, ("user", "hi"), ("assistant", "The answer is "), continue_last=True)
    assert text.endswith("<start_of_turn>assistant\nThe answer is")


def test_a_message_that_the_template_leaves_out_cannot_be_continued() -> None:
    assert "continued" in refusal(SILENT, ("user", "hi"), ("tool", "x"), continue_last=True).message


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = 1 %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(200) }}",
        "{% set x = 'ab' * 1000000000 %}",
        "{% set x = '%1000000000d' % 1 %}",
        "{% set x = 10 ** 100000000 %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_a_template_cannot_take_all_time_or_memory(source: str) -> None:
    error = refusal(source, ("user", "x"), max_seconds=0.1)
    assert error.code is ErrorCode.INVALID_PARAMETER


def test_text_beyond_any_context_is_cut_off_while_it_grows() -> None:
    source = "{% for a in range(99999) %}{{ messages[0].content }}{% endfor %}"
    assert refusal(source, ("user", "x" * 100)).code is ErrorCode.CONTEXT_LENGTH_EXCEEDED


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages[0].content.nothing.more }}",
    ],
)
def test_what_the_sandbox_forbids_or_misses_is_a_refusal(source: str) -> None:
    assert refusal(source, ("user", "x")).code is ErrorCode.INVALID_PARAMETER


def test_no_messages_are_refused() -> None:
    assert refusal(CHATML).message == "there are no messages"
