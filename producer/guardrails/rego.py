"""Rego, evaluated in this process.

The machine is bound to the thread that made it, to its last breath, and stops after 25,000 instructions, some
milliseconds, so it runs on the loop. Any error inside a policy leaves the decision undefined, as in OPA.
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
_ERROR = re.compile(r"^error: (.*)", re.M)
_PLACE = re.compile(r"^--> .*?:(\d+):\d+", re.M)
_PASSED_ON = (KeyboardInterrupt, SystemExit)


class _Machines(threading.local):
    """The machines of this thread. A policy may be collected on any thread, its machine must be freed on this one."""

    _keys = itertools.count()

    def __init__(self) -> None:
        self._by_key: dict[int, regorus.Rvm] = {}
        self._orphaned: list[int] = []

    def make(self, owner: object) -> regorus.Rvm:
        self.free_orphaned()
        key = next(self._keys)
        machine = self._by_key[key] = regorus.Rvm()
        weakref.finalize(owner, self._orphaned.append, key).atexit = False
        return machine

    def free_orphaned(self) -> None:
        while self._orphaned:
            del self._by_key[self._orphaned.pop()]


_machines = _Machines()


class RegoPolicy:
    """One module with its data, compiled. `rule` is what is asked. Raises InvalidGuardrails, naming the line."""

    def __init__(self, name: str, source: str, rule: str, data: str) -> None:
        if not _RULE.fullmatch(rule):
            raise InvalidGuardrails("opa_endpoint", "what follows # must be a rule such as data.inferflux.decision")
        self._rule = rule
        try:
            program = regorus.Program.compile_from_modules("{}", [(name, source)], [rule])
            self._machine = _machines.make(self)
            self._machine.load_program(program)
        except BaseException as error:
            raise InvalidGuardrails("opa_endpoint", f"{name}{_why(error)}") from None
        for builtin in _ABSENT:
            call = rf"^\d+:\s+BuiltinCall\s+r\d+ ← {re.escape(builtin)}\("
            if re.search(call, program.generate_listing(), re.M):
                raise InvalidGuardrails("opa_endpoint", f"{name}: {builtin} is not available here")
        try:
            self._machine.set_data_json(data)
        except BaseException as error:
            raise InvalidGuardrails("opa_endpoint", f"the data of {name}{_why(error)}") from None

    async def decide(self, request: dict[str, Any]) -> Decision:
        try:
            self._machine.set_input_json(orjson.dumps(request).decode())
            value = orjson.loads(self._machine.execute_entry_point(self._rule))
        except BaseException as error:
            # Not its text: an evaluation error can quote the prompt.
            raise NoDecision(f"the policy could not be evaluated{_limit(error)}") from None
        return read_decision(None if value == _UNDEFINED else value)

    async def close(self) -> None:
        return


def _why(error: BaseException) -> str:
    """The one line of an error that tells something; a panic of the library counts as one, though Python's own
    way of naming it would pass all handlers of Exception.
    """
    if isinstance(error, _PASSED_ON):
        raise error
    text = str(error)
    place, reason = _PLACE.search(text), _ERROR.search(text)
    line = f", line {place[1]}" if place is not None else ""
    said = reason[1] if reason is not None else next(iter(text.strip().splitlines()), type(error).__name__)
    return f"{line}: {said[:300]}"


def _limit(error: BaseException) -> str:
    if isinstance(error, _PASSED_ON):
        raise error
    return ": it takes too many instructions" if "instruction limit" in str(error) else ""
