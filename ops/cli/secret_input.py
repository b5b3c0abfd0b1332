"""Secrets come from a prompt or from standard input, never from the command line, which others can see."""

import sys

import click


def read_secret(what: str, *, confirm: bool = False) -> str:
    """A hidden prompt on a terminal; else the first line of standard input. Raises UsageError when that is empty."""
    if sys.stdin.isatty():
        text: str = click.prompt(what, hide_input=True, confirmation_prompt=confirm, err=True)
        return text
    text = sys.stdin.readline().rstrip("\r\n")
    if not text:
        raise click.UsageError(f"{what}: nothing came from standard input")
    return text
