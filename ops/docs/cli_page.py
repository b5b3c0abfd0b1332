"""docs/cli.md from the commands' own help."""

from collections.abc import Iterator

import click

from ops.cli import inferctl, inferflux

INTRO = """\
# Command lines

Made by `make docs` from the commands; do not edit.

Exit codes: 0 ok, 1 failure, 2 usage, 3 cannot start. The reason is one line on stderr.
"""
WIDTH = 110


def cli_page() -> str:
    parts = [INTRO]
    for name, group in (("inferflux", inferflux.group), ("inferctl", inferctl.group)):
        for path, text in _helps(group, name, None):
            parts.append(f"{'##' if path == name else '###'} {path}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def _helps(command: click.Command, name: str, parent: click.Context | None) -> Iterator[tuple[str, str]]:
    context = click.Context(
        command, info_name=name, parent=parent, terminal_width=WIDTH, max_content_width=WIDTH,
        help_option_names=["-h", "--help"],
    )  # fmt: skip
    yield context.command_path, command.get_help(context).rstrip()
    if isinstance(command, click.Group):
        for sub_name in command.list_commands(context):
            sub_command = command.get_command(context, sub_name)
            assert sub_command is not None
            yield from _helps(sub_command, sub_name, context)
