"""How a command ends other than well. The text is one line for the terminal; no traceback is shown."""


class CommandError(Exception):
    """Base; `exit_code` is part of the contract."""

    exit_code = 1


class Failure(CommandError):
    """The command ran and what it was asked for did not work out."""


class CannotStart(CommandError):
    """A process cannot start: a port, a file, a model or a setting stands in the way."""

    exit_code = 3
