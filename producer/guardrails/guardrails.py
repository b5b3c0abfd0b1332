"""The guardrails of one edge: a stage of admission for prompts and a filter for answers, by the rules that hold now."""

import asyncio
from functools import partial

import structlog

from producer.audit.audit import Audit
from producer.edge.admission import Admission
from producer.edge.audited import note_blocked_answer
from producer.edge.background import Background
from producer.edge.output_filter import OutputFilter
from producer.edge.plan import Plan
from producer.edge.stages.size import estimate_size
from producer.guardrails.adjusting import adjusted
from producer.guardrails.decision import Decision
from producer.guardrails.errors import InvalidGuardrails, NoDecision
from producer.guardrails.hold_back import HoldBack
from producer.guardrails.policy_engine import PolicyEngine, open_engine
from producer.guardrails.policy_input import policy_input
from producer.guardrails.prompt_texts import has_token_ids, prompt_param, prompt_texts
from producer.guardrails.rules import Rules, prepare_texts
from producer.guardrails.text_rules import Rule, TextRules, prepared
from producer.guardrails.unusable import Unusable
from producer.metrics import EdgeMetrics
from producer.policy.effective import EffectivePolicy
from schemas.errors import ErrorCode, ServingError
from schemas.policy import GuardrailsPolicy
from schemas.requests import Identity

_log = structlog.stdlib.get_logger("inferflux.guardrails")

# Above so many characters a prompt is read beside the loop.
_MANY_CHARACTERS = 20_000
_NO_RULES = GuardrailsPolicy()


class Guardrails:
    """Used from the loop. What it logs and answers never holds the prompt, the answer, or the rule that was broken."""

    def __init__(self, metrics: EdgeMetrics, background: Background, audit: Audit) -> None:
        self._metrics = metrics
        self._background = background
        self._audit = audit
        self._policy = _NO_RULES
        self._rules = Rules(TextRules((), ()), None, fail_open=False)

    async def prepare(self, policy: EffectivePolicy) -> None:
        """Do what takes long of the next `learn`, beside the loop."""
        if policy.guardrails != self._policy:
            await prepare_texts(policy.guardrails)

    def learn(self, policy: EffectivePolicy) -> None:
        """Prepare what has changed. Rules that cannot be used here refuse all, unless failures pass."""
        given = policy.guardrails
        if given == self._policy:
            return
        before, self._policy = self._rules, given
        text: TextRules = before.text
        engine: PolicyEngine | None = None
        try:
            text = prepared(given.blocklist, given.patterns)
            engine = _engine_of(given)
        except InvalidGuardrails as error:
            # Of a word or an expression only its place: the problem can quote it.
            reason = str(error) if error.field == "opa_endpoint" else error.place
            engine = Unusable(f"guardrails.{reason} cannot be used here")
            _log.error("the guardrails cannot be used", reason=reason, fail_open=given.fail_open)
        self._rules = Rules(text, engine, given.fail_open)
        if before.engine is not None:
            self._background.spawn(before.engine.close(), "close a policy engine")
        _log.info(
            "guardrails",
            phrases=len(given.blocklist),
            patterns=len(given.patterns),
            policy=given.opa_endpoint is not None,
            fail_open=given.fail_open,
        )

    async def close(self) -> None:
        if self._rules.engine is not None:
            await self._rules.engine.close()

    async def __call__(self, admission: Admission) -> None:
        """The stage: after the model is known."""
        before = admission.plan
        admission.plan = await self.check(admission.identity, admission.model.id, before)
        if admission.plan.prompts is not before.prompts:
            await estimate_size(admission)

    async def check(self, identity: Identity, model: str, plan: Plan) -> Plan:
        """The plan as it may be carried out. Raises ServingError: content_filter, policy_denied, policy_unavailable."""
        rules = self._rules
        if rules.is_empty:
            return plan
        if has_token_ids(plan):
            self._pass_unread(rules)
        await self._check_texts(rules, plan)
        if rules.engine is None:
            return plan
        decision = await self._decide(rules, rules.engine, identity, model, plan)
        if decision is None or decision.changes_nothing:
            return plan
        changed = adjusted(plan, decision)
        if changed.prompts is not plan.prompts:
            await self._check_texts(rules, changed)
        return changed

    def make_filter(self, identity: Identity, model: str) -> OutputFilter | None:
        """For one reader of an answer; the rules of this moment hold for it to the end."""
        rules = self._rules
        return None if rules.text.is_empty else HoldBack(rules.text, partial(self._block_answer, identity, model))

    def _pass_unread(self, rules: Rules) -> None:
        if not rules.fail_open:
            raise ServingError(
                ErrorCode.UNSUPPORTED_PARAMETER,
                "Guardrails are on here, and cannot read a prompt of token ids. Send it as text.",
                param="prompt",
            )
        self._metrics.guardrail_decisions.labels("unread").inc()
        _log.warning("a prompt of token ids passed unread")

    async def _check_texts(self, rules: Rules, plan: Plan) -> None:
        if rules.text.is_empty:
            return
        texts = list(prompt_texts(plan))
        if sum(map(len, texts)) > _MANY_CHARACTERS:
            rule = await asyncio.to_thread(_first_broken, rules.text, texts)
        else:
            rule = _first_broken(rules.text, texts)
        if rule is not None:
            self._metrics.guardrail_blocks.inc()
            _log.info("prompt blocked", rule=str(rule))
            raise ServingError(
                ErrorCode.CONTENT_FILTER, "The prompt was refused by a guardrail.", param=prompt_param(plan)
            )

    async def _decide(
        self, rules: Rules, engine: PolicyEngine, identity: Identity, model: str, plan: Plan
    ) -> Decision | None:
        """None when nobody could decide and that passes."""
        decisions = self._metrics.guardrail_decisions
        try:
            decision = await engine.decide(policy_input(identity, model, plan))
        except NoDecision as error:
            _log.warning("no decision of the policy", reason=str(error), passed=rules.fail_open)
            decisions.labels("passed" if rules.fail_open else "failed").inc()
            if rules.fail_open:
                return None
            raise ServingError(
                ErrorCode.POLICY_UNAVAILABLE,
                "The policy that decides on requests gave no decision.",
                retryable=True,
                retry_after_s=1,
            ) from None
        if not decision.allow:
            decisions.labels("deny").inc()
            self._metrics.guardrail_blocks.inc()
            reason = f": {decision.reason}" if decision.reason else "."
            raise ServingError(ErrorCode.POLICY_DENIED, f"The policy denies this request{reason}")
        decisions.labels("allow" if decision.changes_nothing else "change").inc()
        return decision

    def _block_answer(self, identity: Identity, model: str, rule: Rule) -> None:
        self._metrics.guardrail_blocks.inc()
        note_blocked_answer(self._audit, identity, model, str(rule))
        _log.info("answer blocked", rule=str(rule))


def _engine_of(policy: GuardrailsPolicy) -> PolicyEngine | None:
    return open_engine(policy.opa_endpoint, policy.opa_timeout_s) if policy.opa_endpoint is not None else None


def _first_broken(rules: TextRules, texts: list[str]) -> Rule | None:
    return next((rule for text in texts if (rule := rules.broken_by(text)) is not None), None)
