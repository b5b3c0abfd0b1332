"""Request parameters, from request to text."""

from schemas.events import FinishReason
from schemas.requests import TokenPrompt
from tests.workers.engine.harness import Answer, Steps, chat, request


def run(prompt, source: str = "echo:random", **params) -> Answer:
    [answer] = Steps(source).run(request("r", prompt, **params))
    return answer


def test_repeat_answers_with_the_last_user_message() -> None:
    answer = run(chat("first", "answer", "second çé€"), "echo", temperature=0.0)
    assert (answer.text, answer.reason) == ("second çé€", FinishReason.STOP)


def test_the_last_message_is_continued() -> None:
    assert run(chat("hello", "hel", continue_last=True), "echo").text == "lo"


def test_the_same_seed_gives_the_same_text_and_another_another() -> None:
    assert run("x", seed=1).text == run("x", seed=1).text != run("x", seed=2).text


def test_a_stop_string_ends_the_text_before_it() -> None:
    answer = run(chat("one two three"), "echo", stop=("three", "two"))
    assert (answer.text, answer.reason) == ("one ", FinishReason.STOP)


def test_max_tokens_ends_with_length() -> None:
    answer = run(chat("abcdef"), "echo", max_tokens=3)
    assert (answer.text, answer.reason) == ("abc", FinishReason.LENGTH)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


def test_the_end_token_is_counted() -> None:
    answer = run(chat("abc"), "echo")
    assert answer.usage is not None
    assert (answer.usage.completion_tokens, answer.pieces[-1]) == (4, "")


def test_ignore_eos_goes_on_to_max_tokens() -> None:
    for prompt in (chat("abc"), "abc", TokenPrompt(tuple(b"abc"))):
        answer = run(prompt, "echo", ignore_eos=True, max_tokens=10)
        assert (answer.text, answer.reason, len(answer.token_ids)) == ("abc", FinishReason.LENGTH, 10)


def test_logit_bias_bans_and_forces_tokens() -> None:
    banned = tuple((byte, -100.0) for byte in range(ord("a"), ord("z") + 1))
    text = run("x", logit_bias=banned, ignore_eos=True, max_tokens=300).text
    assert not any("a" <= character <= "z" for character in text)
    assert run("x", logit_bias=((ord("Q"), 100.0),), max_tokens=5).text == "QQQQQ"


def test_penalties_lead_away_from_what_was_said() -> None:
    def variety(**params: float) -> int:
        return len(set(run("x", temperature=0.7, ignore_eos=True, max_tokens=200, seed=3, **params).token_ids))

    plain = variety()
    assert variety(frequency_penalty=2.0) > plain
    assert variety(presence_penalty=2.0) > plain
    forced = run("x", logit_bias=((ord("Q"), 30.0),), presence_penalty=2.0, frequency_penalty=2.0, max_tokens=40)
    assert not forced.text.startswith("Q" * 20)
