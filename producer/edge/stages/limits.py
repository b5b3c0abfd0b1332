"""May the key, its tenant and the model take one more request now?"""

from broker.errors import BrokerError
from producer.edge.admission import Admission
from producer.limits.charge import not_counted
from producer.limits.limiter import Ask, Limiter
from producer.limits.sizes import PromptSizes
from schemas.requests import TokenPrompt


class WithinLimits:
    """Takes from all limits of the call. Comes before the queue is looked at, so that who is over its limits does not
    take up room there meanwhile. Far from them the answer is not waited for here, but by whoever submits the call, who
    has to write to the broker anyhow.
    """

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    async def __call__(self, admission: Admission) -> None:
        rules = self._limiter.rules_of(admission.identity, admission.model.id)
        if not rules:
            return
        plan = admission.plan
        ask = Ask(plan.endpoint, len(plan.prompts), most_tokens(admission, self._limiter.sizes))
        try:
            admission.charge = await self._limiter.charge(rules, admission.model.id, ask)
        except BrokerError as error:
            raise not_counted(error) from error
        await admission.charge.begin()


def most_tokens(admission: Admission, sizes: PromptSizes) -> int:
    """What the call may come to: prompts as estimated, or as they were given in tokens, and the longest answers. No
    sequence outgrows the context."""
    context = max((served.context for served in admission.serving), default=None)
    total = 0
    plan = admission.plan
    for prompt, size, sampling in zip(plan.prompts, admission.prompt_tokens, plan.sampling, strict=True):
        answer = sampling.max_tokens if sampling.max_tokens is not None else admission.model.max_output_tokens
        if not isinstance(prompt, TokenPrompt):
            size = sizes.correct(admission.model.id, plan.endpoint, size)
        most = size + answer
        total += most if context is None else min(most, context)
    return total
