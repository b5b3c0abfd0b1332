"""Every handle, and all KV behind it, is free or has exactly one holder: a sequence that runs, or the cache."""

import logging
from collections.abc import Iterable, Mapping

from workers.runners.base import Capabilities, Handle, KeepsBooks, ModelRunner, RunnerError

logger = logging.getLogger(__name__)


class IntegrityError(RunnerError):
    """KV is lost or held twice: what is computed from now on cannot be trusted, so the engine has to go."""


def check_books(
    runner: ModelRunner, capabilities: Capabilities, held: Mapping[Handle, int], faults: Iterable[str]
) -> None:
    """Compare the handles that we hold, with the tokens in each, with what the runner's own books say, if it keeps
    some. `faults`: what is known to be wrong. Raises IntegrityError, and logs it with the numbers.
    """
    found = list(faults)
    if isinstance(runner, KeepsBooks):
        found += _differences(runner, capabilities, held)
    if found:
        message = f"the books of the engine do not balance: {'; '.join(sorted(found))}"
        logger.error("%s", message)
        raise IntegrityError(message)


def _differences(runner: KeepsBooks, capabilities: Capabilities, held: Mapping[Handle, int]) -> Iterable[str]:
    books = runner.books()
    if books.fault:
        yield books.fault
    for handle in held.keys() | books.lengths.keys():
        if handle not in held:
            yield f"{handle} holds {books.lengths[handle]} tokens of nobody"
        elif held[handle] != books.lengths.get(handle):
            yield f"{handle} should hold {held[handle]} tokens, and the runner says {books.lengths.get(handle)}"
    num_used = len(books.lengths)
    if books.free_handles + num_used != capabilities.max_handles:
        yield f"{books.free_handles} handles are free and {num_used} in use, of {capabilities.max_handles}"
