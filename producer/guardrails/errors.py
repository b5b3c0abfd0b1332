"""What can be wrong with guardrails."""


class InvalidGuardrails(ValueError):
    """A rule that cannot be used; the text is one line, names the field, and can quote the rule.

    `field` is the one of the policy, `place` where in it.
    """

    def __init__(self, field: str, problem: str, index: int | None = None) -> None:
        self.field = field
        self.place = field if index is None else f"{field}[{index}]"
        super().__init__(f"{self.place}: {problem}")


class NoDecision(Exception):
    """The policy could not be asked, or its answer is none. The text is for the log: no prompt stands in it."""
