"""What can go wrong while measuring. Each text is one line."""


class ArmFailed(Exception):
    """A server under test did not start, died, or gave an answer that cannot be counted. The other arms go on."""


class ArmUnavailable(Exception):
    """A server under test is not installed, or cannot serve this model; says what to do about it."""


class RequestFailed(Exception):
    """One answer was refused, cut or not understood."""
