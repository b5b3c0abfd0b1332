"""Why a model of a hub is not here. Texts are one line that begins with the source, and hold no token."""

from ops.errors import CannotStart


class HubError(CannotStart):
    """Base."""


class HubUnreachable(HubError):
    """No answer, or one that says 'later'. What is on the disk may still do."""


class NotHere(HubError):
    """It would have to be downloaded, and may not be."""


class WrongBytes(HubError):
    """What was downloaded, twice, is not what the hub says it has."""
