"""Commands that the pages name can be typed: tasks exist, subcommands and options parse."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from ops.bench import command as bench
from ops.bench import long_prompt, step
from ops.cli import inferctl, inferflux
from ops.cli.program import main
from tests.docs.pages import NAMES, PAGES, ROOT, code_spans, shell_commands

GROUPS: dict[str, click.Group] = {"inferflux": inferflux.group, "inferctl": inferctl.group}
BENCHMARKS: dict[str, click.Command] = {
    "ops.bench": bench.command,
    "ops.bench.long_prompt": long_prompt.command,
    "ops.bench.step": step.command,
}
OPERATORS = {"|", ">", "&&", ";", "<", ">>"}


each_page = pytest.mark.parametrize("page", PAGES, ids=NAMES)


def command_lines(page: Path) -> Iterator[list[str]]:
    """Words of every command line of the page, up to a pipe or a redirection, comments and `.venv/bin/` left out."""
    for line in (*shell_commands(page), *code_spans(page)):
        if not re.match(r"(\.venv/bin/)?(make|inferflux|inferctl|inferflux [\w|]+)\b(?! [|])", line):
            continue
        words = shlex.split(line, comments=True)
        end = next((place for place, word in enumerate(words) if word in OPERATORS), len(words))
        if words:
            yield [words[0].removeprefix(".venv/bin/"), *words[1:end]]


@each_page
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for program, *arguments in command_lines(page):
        if program == "make":
            names = [argument for argument in arguments if "=" not in argument]
            assert set(names) <= targets, names


@each_page
def test_our_commands_parse(page: Path) -> None:
    for program, *arguments in command_lines(page):
        if program in GROUPS:
            check(GROUPS[program], program, arguments)


@each_page
def test_benchmarks_and_tests_can_be_asked_for(page: Path) -> None:
    for line in shell_commands(page):
        words = shlex.split(line, comments=True)
        program, arguments = words[0].removeprefix(".venv/bin/"), words[1:]
        match program, arguments:
            case "python", ["-m", module, *rest] if module in BENCHMARKS:
                check_options(BENCHMARKS[module], rest)
            case "make", ["bench", argument]:
                check_options(BENCHMARKS["ops.bench"], shlex.split(argument.removeprefix("ARGS=")))
            case "pytest", _:
                for word in arguments:
                    assert "/" not in word or (ROOT / word).exists(), word


def check_options(command: click.Command, arguments: list[str]) -> None:
    options = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in arguments if word.startswith("--")} <= options


def check(group: click.Group, program: str, arguments: list[str]) -> None:
    """Find the command, ask it for help, and look up every option."""
    command: click.Command = group
    context = click.Context(group, info_name=program)
    path = []
    while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        found = command.get_command(context, arguments[0])
        assert found is not None, f"{program} has no command {arguments[0]!r}"
        command, context = found, click.Context(found, info_name=arguments[0], parent=context)
        path.append(arguments.pop(0))
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    options |= {"-h", "--help"}
    for word in arguments:
        if word.startswith("-"):
            assert word.partition("=")[0] in options, f"{program} {' '.join(path)} has no option {word}"
    assert main(group, program, [*path, "--help"]) == 0
