"""A prompt from the command line, or from standard input when it is `-`."""

import sys

import click


def read_prompt(text: str) -> str:
    """Without the line end that a file ends with. Raises UsageError when there is nothing."""
    if text != "-":
        return text
    read = sys.stdin.buffer.read().decode(errors="replace").removesuffix("\n").removesuffix("\r")
    if not read:
        raise click.UsageError("--prompt -: nothing came from standard input")
    return read
