"""What a call came to, for its limits: told as soon as it is over, whoever still reads its answer."""

from collections.abc import Sequence

from broker.journal_view import JournalView
from producer.edge.calls import Call, Part
from producer.limits.charge import Charge
from schemas.events import Finished


def settle_at_end(charge: Charge, call: Call, views: Sequence[JournalView], prompt_tokens: Sequence[int]) -> None:
    """End the charge with the call. Views and `prompt_tokens`, the estimates that were reserved, are by part."""

    def bill() -> None:
        if call.bill is None or not (call.is_over or call.failure is not None):
            return
        call.bill = None
        charge.end(sum(map(tokens_of, call.parts, prompt_tokens)))
        for part, estimated in zip(call.parts, prompt_tokens, strict=True):
            if isinstance(end := part.view.fold.terminal, Finished):
                charge.facts.note_size(estimated, end.usage.prompt_tokens)

    call.bill = bill
    for view in views:
        view.on_end(bill)


def tokens_of(part: Part, prompt_tokens: int) -> int:
    """Prompt and answer, as far as they were computed; the prompt as estimated where no worker has counted it."""
    end = part.view.fold.terminal
    if isinstance(end, Finished):
        return end.usage.prompt_tokens + end.usage.completion_tokens
    has_begun = part.started is not None or part.view.fold.started is not None
    return prompt_tokens + part.view.fold.length if has_begun else 0
