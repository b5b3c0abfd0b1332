"""Rego, evaluated in this process.

The interpreter decides: it goes by OPA's rules, an error of a built-in being an error of the whole as with OPA's
`strict-builtin-errors`. It has no bounds. So the same module runs on the library's machine first, which stops after
25,000 instructions, some milliseconds; its answer counts for nothing, since it goes on behind `x := <undefined>`.
Both are bound to the thread that made them, to their last breath, and run on the loop.
"""

import itertools
import re
import threading
import weakref
from typing import Any

import orjson
import regorus

from producer.guardrails.decision import Decision, read_decision
from producer.guardrails.errors import InvalidGuardrails, NoDecision

DEFAULT_RULE = "data.inferflux.decision"
_RULE = re.compile(r"data(?:\.[A-Za-z_]\w*)+")
# Accepted by the compiler, and undefined whatever it is asked: a policy could not tell that from an answer.
_ABSENT = ("http.send",)
_UNDEFINED = "<undefined>"
# The innermost of nested errors, the last one, says what is wrong; behind this they are told once more.
_ERROR = re.compile(r"^error: (.*)", re.M)
_REPEATED = "\nCaused by:"
_PLACE = re.compile(r"^--> .*?:(\d+):\d+", re.M)
_TOO_LONG = "instruction limit"
_PASSED_ON = (KeyboardInterrupt, SystemExit)


class _Evaluator:
    """Machine and interpreter of one module."""

    def __init__(self, name: str, source: str, rule: str) -> None:
        """Raises what the library does."""
        self._rule = rule
        self._program = regorus.Program.compile_from_modules("{}", [(name, source)], [rule])
        self._machine = regorus.Rvm()
        self._machine.load_program(self._program)
        self._interpreter = regorus.Engine()
        self._interpreter.add_policy(name, source)

    def calls(self, builtin: str) -> bool:
        call = rf"^\d+:\s+BuiltinCall\s+r\d+ ← {re.escape(builtin)}\("
        return re.search(call, self._program.generate_listing(), re.M) is not None

    def set_data(self, data: str) -> None:
        self._machine.set_data_json(data)
        self._interpreter.add_data_json(data)

    def evaluate(self, request: str) -> str:
        """The value as JSON. Raises NoDecision, or what the library does."""
        self._require_short(request)
        self._interpreter.set_input_json(request)
        value: str = self._interpreter.eval_rule_as_json(self._rule)
        return value

    def _require_short(self, request: str) -> None:
        self._machine.set_input_json(request)
        try:
            self._machine.execute_entry_point(self._rule)
        except Exception as error:  # one that ends early is short
            if _TOO_LONG in str(error):
                raise NoDecision("the policy could not be evaluated: it takes too many instructions") from None


class _Evaluators(threading.local):
    """Those of this thread. A policy may be collected on any thread, its evaluator must be freed on this one."""

    _keys = itertools.count()

    def __init__(self) -> None:
        self._by_key: dict[int, _Evaluator] = {}
        self._orphaned: list[int] = []

    def make(self, owner: object, name: str, source: str, rule: str) -> _Evaluator:
        self.free_orphaned()
        key = next(self._keys)
        evaluator = self._by_key[key] = _Evaluator(name, source, rule)
        weakref.finalize(owner, self._orphaned.append, key).atexit = False
        return evaluator

    def free_orphaned(self) -> None:
        while self._orphaned:
            del self._by_key[self._orphaned.pop()]


_evaluators = _Evaluators()


class RegoPolicy:
    """One module with its data, compiled. `rule` is what is asked. Raises InvalidGuardrails, naming the line."""

    def __init__(self, name: str, source: str, rule: str, data: str) -> None:
        if not _RULE.fullmatch(rule):
            raise InvalidGuardrails("opa_endpoint", "what follows # must be a rule such as data.inferflux.decision")
        try:
            self._evaluator = _evaluators.make(self, name, source, rule)
        except BaseException as error:
            raise InvalidGuardrails("opa_endpoint", f"{name}{_why(error)}") from None
        for builtin in _ABSENT:
            if self._evaluator.calls(builtin):
                raise InvalidGuardrails("opa_endpoint", f"{name}: {builtin} is not available here")
        try:
            self._evaluator.set_data(data)
        except BaseException as error:
            raise InvalidGuardrails("opa_endpoint", f"the data of {name}{_why(error)}") from None

    async def decide(self, request: dict[str, Any]) -> Decision:
        try:
            value = orjson.loads(self._evaluator.evaluate(orjson.dumps(request).decode()))
        except (NoDecision, *_PASSED_ON):
            raise
        except BaseException:
            # A panic of the library is no Exception. Not its text: an evaluation error can quote the prompt.
            raise NoDecision("the policy could not be evaluated") from None
        return read_decision(None if value == _UNDEFINED else value)

    async def close(self) -> None:
        return


def _why(error: BaseException) -> str:
    """The one line of an error that tells something; a panic of the library counts as one, though Python's own
    way of naming it would pass all handlers of Exception.
    """
    if isinstance(error, _PASSED_ON):
        raise error
    text = str(error).partition(_REPEATED)[0]
    places, reasons = _PLACE.findall(text), _ERROR.findall(text)
    line = f", line {places[-1]}" if places else ""
    said = reasons[-1] if reasons else next(iter(text.strip().splitlines()), type(error).__name__)
    return f"{line}: {said[:300]}"
