"""Both command lines: help, exit codes, and how little is imported for them."""

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from ops.cli import inferctl, inferflux
from ops.cli.program import LazyGroup, main
from ops.errors import CannotStart, Failure
from ops.settings.errors import SettingsError

PROGRAMS = {"inferflux": inferflux.group, "inferctl": inferctl.group}
HEAVY = (
    "numpy",
    "nats",
    "pydantic",
    "httpx2",
    "rich",
    "yaml",
    "starlette",
    "structlog",
    "tenacity",
    "prometheus_client",
)


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_begins_with_a_first_session(name: str) -> None:
    result = CliRunner().invoke(PROGRAMS[name], ["--help"])
    assert result.exit_code == 0
    assert result.output.splitlines()[2].strip() == "A first session:"
    assert f"  {name} " in result.output.split("Options:")[0]


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_command_loads_and_explains_itself(name: str) -> None:
    def walk(group: click.Group, path: list[str]) -> None:
        for sub_name in group.list_commands(click.Context(group)):
            sub_command = group.get_command(click.Context(group), sub_name)
            assert sub_command is not None
            result = CliRunner().invoke(PROGRAMS[name], [*path, sub_name, "--help"])
            assert result.exit_code == 0, result.output
            assert sub_command.help
            if isinstance(sub_command, click.Group):
                walk(sub_command, [*path, sub_name])

    walk(PROGRAMS[name], [])


@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_heavy_is_imported_for_help(name: str) -> None:
    code = (
        f"import sys, ops.cli.{name} as program\n"
        f"from ops.cli.program import main\n"
        f"assert main(program.group, {name!r}, ['--help']) == 0\n"
        f"print('HEAVY', [module for module in {HEAVY!r} if module in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (Failure("it went wrong"), 1),
        (click.UsageError("not so"), 2),
        (SettingsError("flag", is_usage=True), 2),
        (SettingsError("variable"), 3),
        (CannotStart("port taken"), 3),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(raised: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    @click.command()
    def fail() -> None:
        raise raised

    group = LazyGroup("program", entries={})
    group.get_command = lambda ctx, cmd_name: fail  # type: ignore[method-assign]
    assert main(group, "program", ["fail"]) == code
    assert "Traceback" not in capsys.readouterr().err


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ops.cli.inferflux", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=30, check=False)


def test_version_is_one_line() -> None:
    done = run("--version")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)
    assert done.stdout.startswith("inferflux ")


@pytest.mark.parametrize(
    ("arguments", "environ", "code", "words"),
    [
        (["up", "--port", "seventy"], {}, 2, "flag --port"),
        (["up", "--prot", "80"], {}, 2, "--port"),
        (["sing"], {}, 2, "No such command"),
        (["up"], {"INFERFLUX_PORT_OVERIDE": "1"}, 3, "INFERFLUX_PORT_OVERRIDE"),
        (["up", "--host", "0.0.0.0"], {}, 3, "no API key"),
        (["up", "--model", "/absent.gguf"], {}, 3, "/absent.gguf"),
        (["up"], {"INFERFLUX_SPECULATIVE_ENABLED": "true"}, 3, "not available in this version"),
        (["edge", "--data-dir", "/absent/data"], {}, 3, "no broker"),
        (["worker", "--backend", "echo", "--data-dir", "/absent/data"], {}, 3, "no broker"),
        (["worker", "--backend", "echo", "--nats-url", "nats://127.0.0.1:1"], {}, 3, "127.0.0.1:1"),
    ],
)
def test_what_cannot_start_says_why_in_one_line(
    arguments: list[str], environ: dict[str, str], code: int, words: str
) -> None:
    done = run(*arguments, env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **environ})
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    if code == 3:
        (line,) = [line for line in done.stderr.splitlines() if "[info" not in line and "[warning" not in line]
        assert line.startswith("error: ")
