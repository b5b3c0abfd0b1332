"""Questions whose undisturbed answer is known: the same engine, in the test's own process, has given it."""

import itertools
from typing import Any, NamedTuple

from tests.workers.engine.harness import Answer, Steps, request

# Stop strings that almost come: while one of them may be coming, its text is held back.
_DECOYS = 14
_DECOY_LENGTH = 10


class Question(NamedTuple):
    """A completion of an echo model, and what must come of it."""

    body: dict[str, Any]
    text: str
    reason: str


class Questions:
    """Makes questions, each another one: half greedy, half at temperature 0.9, with stop strings all over the answer.

    Every other one ends by a stop string shortly before its last token.
    """

    def __init__(self, num_tokens: int, *, prompt_tokens: int = 20, model: str = "echo") -> None:
        self._num_tokens = num_tokens
        self._model = model
        self._prompt_tokens = prompt_tokens
        self._numbers = itertools.count()
        self._engine = Steps("echo:random")

    def next(self) -> Question:
        number = next(self._numbers)
        prompt = f"question {number} ".ljust(self._prompt_tokens, ".")
        sampling = {"temperature": 0.9 if number % 2 else 0.0, "seed": number, "max_tokens": self._num_tokens}
        whole = self._answer(f"{number}", prompt, **sampling)
        stops = _stops(whole.text, ends=number % 4 < 2)
        answer = self._answer(f"{number}s", prompt, stop=stops, **sampling)
        assert answer.reason is not None
        body = {"model": self._model, "prompt": prompt, "stop": list(stops), "ignore_eos": True, **sampling}
        return Question(body, answer.text, answer.reason.value)

    def _answer(self, name: str, prompt: str, **sampling: Any) -> Answer:
        [answer] = self._engine.run(request(name, prompt, ignore_eos=True, **sampling))
        return answer


def _stops(text: str, *, ends: bool) -> tuple[str, ...]:
    """Pieces of the text with another last character, and one that really comes at its end if it `ends`."""
    step = max(1, (len(text) - 2 * _DECOY_LENGTH) // _DECOYS)
    starts = range(0, len(text) - 2 * _DECOY_LENGTH, step)
    decoys = [text[at : at + _DECOY_LENGTH - 1] + chr(0x2400 + number) for number, at in enumerate(starts)]
    return (*decoys[:_DECOYS], *([text[-_DECOY_LENGTH - 2 : -2]] if ends else []))
