"""What both command lines share: commands loaded on use, errors as one line, exit codes."""

import contextlib
import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import click
from click.shell_completion import CompletionItem

from ops.errors import CommandError
from ops.settings.errors import SettingsError

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_CANNOT_START = 3
EXIT_INTERRUPTED = 130


class Entry(NamedTuple):
    """A command that is imported when it is called. `help` is its line in the overview."""

    module: str
    help: str


class LazyGroup(click.Group):
    """A group whose overview and completion need no command's module."""

    def __init__(self, *args: object, entries: Mapping[str, Entry], **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._entries = entries

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self._entries.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = importlib.import_module(entry.module).command
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [
            CompletionItem(name, help=entry.help)
            for name, entry in self._entries.items()
            if name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in self._entries.items()])


def main(group: click.Group, name: str, arguments: Sequence[str]) -> int:
    """Run a command line; returns its exit code. Whatever goes wrong in a known way is one line on stderr."""
    try:
        result = group.main(list(arguments), prog_name=name, standalone_mode=False)
    except click.UsageError as error:
        error.show()
        return EXIT_USAGE
    except click.ClickException as error:
        error.show()
        return EXIT_FAILURE
    except SettingsError as error:
        _say(str(error))
        return EXIT_USAGE if error.is_usage else EXIT_CANNOT_START
    except CommandError as error:
        _say(str(error))
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output left, as `head` does. Python would complain once more while it flushes.
        with contextlib.suppress(OSError):
            sys.stdout.close()
        return EXIT_FAILURE
    return result if isinstance(result, int) else 0


def _say(message: str) -> None:
    click.echo(f"error: {message}", err=True)
