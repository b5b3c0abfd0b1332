"""OPA's own evaluator, out of its Go library, beside ours: what it decides by the same module on the same input."""

import importlib.util
from typing import Any

import orjson
import pytest

from producer.guardrails.decision import Decision, read_decision
from producer.guardrails.errors import NoDecision

needs_opa = pytest.mark.skipif(
    importlib.util.find_spec("opa_bindings") is None, reason="OPA's library is not built for this platform"
)


class RealOpa:
    """One module. `result` is what OPA's data API answers with; absent when undefined, an error when it fails."""

    def __init__(self, source: str, rule: str = "inferflux.decision") -> None:
        from opa_bindings import OpaEngine

        self._engine = OpaEngine()
        self._engine.add_policy("policy.rego", source)
        self._rule = rule

    def answer(self, request: dict[str, Any]) -> tuple[int, bytes]:
        """Status and body, as the server has them."""
        from opa_bindings import OpaError, OpaUndefinedError

        try:
            return 200, orjson.dumps({"result": self._engine.eval_document(self._rule, request)})
        except OpaUndefinedError:
            return 200, b"{}"
        except OpaError:
            return 500, b'{"code": "internal_error"}'

    def decide(self, request: dict[str, Any]) -> Decision | None:
        """None: no decision."""
        status, body = self.answer(request)
        try:
            return read_decision(orjson.loads(body).get("result")) if status == 200 else None
        except NoDecision:
            return None

    def close(self) -> None:
        self._engine.close()
