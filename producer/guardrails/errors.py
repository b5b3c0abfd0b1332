"""What can be wrong with guardrails."""


class InvalidGuardrails(ValueError):
    """A rule that cannot be used; the text names it and is one line."""


class NoDecision(Exception):
    """The policy could not be asked, or its answer is none. The text is for the log: no prompt stands in it."""
