"""Why a stored policy cannot be used. Texts are one line, fit for a terminal, and hold no secret."""


class PolicyError(Exception):
    """Base. `place` in texts is where the document was found."""


class Damaged(PolicyError):
    """It is not what was written: bytes are missing or changed."""


class WrongSecret(PolicyError):
    """It is whole, and the secret of this process does not open it."""


class NoSecret(PolicyError):
    """There is no secret to open or to write it with."""


class WrongPepper(PolicyError):
    """Its keys were hashed with another pepper than this process has."""


class NoKeys(PolicyError):
    """Nobody could call: no key is known, and others than this machine can reach it."""
