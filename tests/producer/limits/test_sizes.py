from producer.limits.sizes import PromptSizes
from schemas.requests import Endpoint

CHAT = Endpoint.CHAT


def test_the_next_prompt_is_reserved_as_the_last_ones_came_out() -> None:
    sizes = PromptSizes()
    assert sizes.correct("m", CHAT, 100) == 100
    sizes.note("m", CHAT, 100, 150)
    assert sizes.correct("m", CHAT, 100) in (150, 151)
    assert sizes.correct("other", CHAT, 100) == 100


def test_the_template_of_short_chats_is_no_burden_to_other_prompts() -> None:
    sizes = PromptSizes()
    sizes.note("m", CHAT, 5, 40)
    assert sizes.correct("m", CHAT, 5) >= 40
    assert sizes.correct("m", Endpoint.COMPLETIONS, 100) == 100


def test_what_came_out_smaller_is_not_reserved_smaller() -> None:
    sizes = PromptSizes()
    sizes.note("m", CHAT, 100, 20)
    assert sizes.correct("m", CHAT, 100) == 100


def test_old_prompts_are_forgotten_and_none_blows_up_a_reservation() -> None:
    sizes = PromptSizes()
    sizes.note("m", CHAT, 1, 1000)
    assert sizes.correct("m", CHAT, 10) <= 81
    for _ in range(1000):
        sizes.note("m", CHAT, 100, 100)
    assert sizes.correct("m", CHAT, 100) <= 101
