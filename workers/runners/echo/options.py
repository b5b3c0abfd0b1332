"""The echo runner's sources, such as `echo`, `echo:repeat`, `echo:random?rate=50&prefill_rate=2000`."""

from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import parse_qsl

from workers.runners.base import RunnerError

_NUMBERS = ("rate", "prefill_rate", "seed", "kv_tokens")
_TEXTS = ("die_on", "hang_on")
_NAMES = (*_NUMBERS, *_TEXTS)


class EchoMode(StrEnum):
    """`repeat` answers with the last user message, or the prompt; `random` writes pseudo-random text."""

    REPEAT = "repeat"
    RANDOM = "random"


@dataclass(frozen=True, slots=True)
class EchoOptions:
    """`rate` is tokens per second and sequence, `prefill_rate` prompt tokens per second; None is as fast as it goes.

    `seed` chooses among random models. `kv_tokens` is the room of all handles together, None for all at full length.
    A sequence that contains `die_on` kills the process once its prompt is computed, as a prompt does that a backend
    cannot bear; with `hang_on` that step never ends, as on a device that hangs.
    """

    mode: EchoMode = EchoMode.REPEAT
    rate: float | None = None
    prefill_rate: float | None = None
    seed: int = 0
    kv_tokens: int | None = None
    die_on: str | None = None
    hang_on: str | None = None


def parse_source(source: str) -> EchoOptions:
    """Raises RunnerError naming what it does not understand."""
    form, _, query = source.partition("?")
    name, _, mode = form.partition(":")
    if name != "echo" or mode not in ("", *EchoMode):
        raise RunnerError(f"the echo runner's sources are echo, echo:repeat and echo:random, not {source!r}")
    given = _given(source, query)
    try:
        numbers = {name: float(given[name]) for name in _NUMBERS if name in given}
    except ValueError as error:
        raise RunnerError(f"the options of {source!r} are not numbers: {error}") from error
    for name in ("rate", "prefill_rate", "kv_tokens"):
        if name in numbers and not 0 < numbers[name] < float("inf"):
            raise RunnerError(f"{name} must be above 0 in {source!r}")
    return EchoOptions(
        mode=EchoMode(mode or EchoMode.REPEAT),
        rate=numbers.get("rate"),
        prefill_rate=numbers.get("prefill_rate"),
        seed=int(numbers.get("seed", 0)),
        kv_tokens=int(numbers["kv_tokens"]) if "kv_tokens" in numbers else None,
        die_on=given.get("die_on"),
        hang_on=given.get("hang_on"),
    )


def _given(source: str, query: str) -> dict[str, str]:
    try:
        given = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError as error:
        raise RunnerError(f"the options of {source!r} cannot be read: {error}") from error
    for name in given:
        if name not in _NAMES:
            raise RunnerError(f"the echo runner has no option {name!r}; it has {', '.join(_NAMES)}")
    for name in _TEXTS:
        if given.get(name) == "":
            raise RunnerError(f"{name} must not be empty in {source!r}")
    return given
