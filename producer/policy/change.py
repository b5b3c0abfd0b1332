"""What a change of the policy is."""

from collections.abc import Callable

from schemas.policy import PolicyDocument

# Pure: it may be called again, on a newer document. What it raises ends the attempt.
Change = Callable[[PolicyDocument], PolicyDocument]
# Wraps a change into one that is refused under some condition.
Guard = Callable[[Change], Change]
