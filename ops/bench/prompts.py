"""The prompts: texts of our own, alike in length, different from the first word on, or from behind a shared prefix."""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import count, islice

from ops.bench.token_counts import Count


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Lists of coprime lengths, each walked by the prompt's number: no text comes twice before their product is through, and
# no two of the first 992 begin with the same two words, so that a prefix cache finds nothing.
_FIRST = _words("""
    Amber Brisk Copper Dusty Eastern Frozen Golden Hidden Ivory Jolly Kindred Lonely Marble Narrow Olive Purple Quiet
    Rustic Silver Timber Upper Velvet Windy Young Bitter Clever Distant Early Feather Gentle Hollow Iron
""")
_SECOND = _words("""
    Anchor Bridge Castle Dragon Engine Forest Garden Harbour Island Journal Kitchen Lantern Meadow Needle Orchard Planet
    Quarry River Station Tower Umbrella Valley Window Yard Basket Circle Desert Elephant Falcon Glacier Hammer
""")
_KINDS = (
    "is a small bakery near the old market square",
    "is a night train between two distant capital cities",
    "is a repair shop for used and unusual bicycles",
    "is a weather station on a remote and windy hill",
    "is a village library run by a few students",
)
_TASKS = (
    "Describe a typical morning there in three sentences",
    "List four problems it has to solve every winter",
    "Write a short letter that invites an old friend to visit it",
    "Explain to a newcomer how the work is shared",
    "Tell how it came to its name and who chose it",
    "Compare it with a larger place of the same kind",
    "Give five rules that everyone who works there should know",
)
_ENDINGS = (
    "and then say why its neighbours would miss it if it had to close.",
    "and end with one thing that most of the visitors never notice.",
    "and add a question that a curious child might ask about it.",
    "and mention what changed there during the last twenty years.",
    "and close with advice for someone who wants to do the same.",
    "and point out which part of it costs more than people think.",
    "and finish with a sentence that would look good on a poster.",
    "and include one number, one colour and the name of one person.",
    "and leave out everything that has to do with money or prices.",
)
_ASIDES = (
    "Use plain words, and do not repeat the question.",
    "Keep a friendly tone, and avoid lists with bullets.",
    "Write as if for a local newspaper, without a headline.",
    "Stay close to the facts, and invent only small details.",
    "Use the present tense, and do not mention this request.",
    "Address the reader directly, and do so only one time.",
    "Prefer short sentences, and never use the same verb twice.",
    "Be precise about times, and vague about everybody's age.",
    "Sound a little tired, but proud of what has been achieved.",
    "Take the view of an owner, and not the view of a guest.",
    "Let the weather play a part, but do not begin with it.",
)


def prompt(number: int) -> str:
    """The prompt with this number; always the same text, about 51 tokens of an English tokenizer."""

    def pick(words: tuple[str, ...]) -> str:
        return words[number % len(words)]

    name = f"{pick(_FIRST)} {pick(_SECOND)}"
    return f"{name} {pick(_KINDS)}. {pick(_TASKS)}, {pick(_ENDINGS)} {pick(_ASIDES)}"


def prompts() -> Iterator[str]:
    """All prompts from the first one on, without end."""
    return (prompt(number) for number in count())


SHARED_WORDS = 300
# Prompts far behind those that any load comes to.
_SHARED_FROM = 1_000_000
# No other prompt begins so.
_SHARED_BEGINNING = _words("These notes were collected for new visitors:")


def shared_prefix() -> str:
    """The 300 words that the other kind of prompts all begin with."""
    words = (word for number in count(_SHARED_FROM) for word in prompt(number).split())
    return " ".join([*_SHARED_BEGINNING, *islice(words, SHARED_WORDS - len(_SHARED_BEGINNING))])


def prompts_that_share() -> Iterator[str]:
    """The shared prefix with a question behind it, different each time, without end."""
    prefix = shared_prefix()
    return (f"{prefix} {prompt(number).partition(',')[0]}." for number in count())


LONG_TOKENS = 1500
# About as many tokens of an English tokenizer; and more than that many of any.
LONG_WORDS = 1314
_MOST_LONG_WORDS = LONG_TOKENS
# Prompts far behind those that any other load comes to.
_LONG_FROM = 500_000


def long_prompt(number: int, num_words: int = LONG_WORDS) -> str:
    """So many words, none of whose beginnings a server has seen before."""
    words = (word for each in count(_LONG_FROM + 1000 * number) for word in prompt(each).split())
    return " ".join(islice(words, num_words))


def long_prompts(count_tokens: Count | None = None) -> Iterator[str]:
    """Long prompts, no two of which begin alike, without end: as many words as have 1,500 tokens, where they can be
    counted."""
    if count_tokens is None:
        return (long_prompt(number) for number in count())
    return (_cut(long_prompt(number, _MOST_LONG_WORDS), count_tokens) for number in count())


def _cut(text: str, count_tokens: Count) -> str:
    """The longest beginning, in whole words, that has no more tokens."""
    words = text.split()
    num_words = bisect_right(
        range(len(words) + 1), LONG_TOKENS, key=lambda number: count_tokens(" ".join(words[:number]))
    )
    return " ".join(words[: num_words - 1])
