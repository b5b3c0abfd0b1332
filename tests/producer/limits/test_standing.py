import pytest

from producer.limits.standing import Standing, duration, headers


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.012, "12ms"), (1, "1s"), (7.664, "7.66s"), (60, "1m0s"), (61.2, "1m1s"), (3723, "1h2m3s")],
)
def test_durations_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_what_is_left_is_never_negative() -> None:
    assert headers("tokens", Standing(10, 12, 3.0)) == {
        "x-ratelimit-limit-tokens": "10",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "3s",
    }
