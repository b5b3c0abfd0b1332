"""The command line of the benchmark."""

import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
import orjson

from ops.bench.arm import Arm
from ops.bench.arms import DEFAULT_NAMES, NAMES, make_arm
from ops.bench.document import Report, describe_model, document, now
from ops.bench.errors import ArmUnavailable
from ops.bench.host import this_host
from ops.bench.markdown import markdown
from ops.bench.option_types import arm_names, counts
from ops.bench.plan import BenchPlan
from ops.bench.turns import Results, run_turns
from ops.cli import loop, program
from ops.errors import CannotStart, CommandError
from ops.serving.plan import DEFAULT_SOURCE
from ops.serving.sources import SourceKind, resolve
from workers.runners.llama_cpp.machine import num_processors

# A prompt and some room.
PROMPT_ROOM = 160


@click.command()
@click.option(
    "--arms", callback=arm_names, help=f"Servers to measure, of {', '.join(NAMES)}. [default: those that can run]"
)
@click.option("--concurrency", callback=counts, default="1,8,32", show_default=True, help="Clients of each load.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Turns of every arm.")
@click.option(
    "--requests",
    type=click.IntRange(1),
    default=12,
    show_default=True,
    help="Answers of each load at least; every client gives two or more.",
)
@click.option("--max-tokens", type=click.IntRange(1), default=64, show_default=True, help="Tokens of each answer.")
@click.option("--threads", type=click.IntRange(1), help="Threads of every server. [default: one per processor]")
@click.option("--context", type=click.IntRange(1), default=256, show_default=True, help="Tokens of each sequence.")
@click.option("--model", metavar="SOURCE", help=f"GGUF file or pkg:<package>. [default: {DEFAULT_SOURCE}]")
@click.option("--llama-server", type=click.Path(path_type=Path), help="Binary. [default: the installed one]")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for the JSON and the tables.")
def command(
    arms: tuple[str, ...] | None,
    concurrency: tuple[int, ...],
    rounds: int,
    requests: int,
    max_tokens: int,
    threads: int | None,
    context: int,
    model: str | None,
    llama_server: Path | None,
    out: Path | None,
) -> int:
    """Measure this stack and llama-server on the same model, in turn.

    \b
      make bench                                              # all that can run here
      python -m ops.bench --arms ours,llama-server --concurrency 1,8 --rounds 5
      python -m ops.bench --arms echo                         # everything but the model

    Tables go to stdout, progress to stderr. Exit code 1 when an arm failed, 3 when an arm that was asked for cannot
    run.
    """
    if context < max_tokens + PROMPT_ROOM:
        raise click.UsageError(f"--context must be at least {max_tokens + PROMPT_ROOM} for --max-tokens {max_tokens}")
    plan = BenchPlan(
        model=_find_model(model),
        arms=arms or DEFAULT_NAMES,
        concurrency=concurrency,
        rounds=rounds,
        requests=requests,
        max_tokens=max_tokens,
        threads=threads or num_processors(),
        context=context,
    )
    return _bench(plan, llama_server, out, is_asked_for=arms is not None)


def run() -> int:
    """Run the command with the process's arguments; returns the exit code."""
    try:
        code: int = command.main(sys.argv[1:], prog_name="python -m ops.bench", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except CommandError as error:
        _say(f"error: {error}")
        return error.exit_code
    return code


class Arms(NamedTuple):
    """What will run, and why the rest will not."""

    usable: list[Arm]
    skipped: dict[str, str]


def _find_model(source: str | None) -> Path | None:
    """The GGUF file; None when no model was named and the default one is not installed. Raises CannotStart."""
    try:
        found = resolve(source or DEFAULT_SOURCE)
    except CommandError:
        if source is not None:
            raise
        return None
    if found.kind is not SourceKind.GGUF:
        raise CannotStart(f"{source}: the arms share one GGUF file, and this is a {found.kind}")
    return Path(found.location)


def _check_arms(plan: BenchPlan, llama_server: Path | None, *, is_asked_for: bool) -> Arms:
    usable, skipped = [], {}
    for name in plan.arms:
        arm = make_arm(name, plan, llama_server)
        try:
            arm.check()
        except ArmUnavailable as error:
            if is_asked_for:
                raise CannotStart(f"arm {name}: {error}") from None
            skipped[name] = str(error)
            _say(f"without {name}: {error}")
        else:
            usable.append(arm)
    return Arms(usable, skipped)


def _bench(plan: BenchPlan, llama_server: Path | None, out: Path | None, *, is_asked_for: bool) -> int:
    taken_at, host = now(), this_host()
    arms = _check_arms(plan, llama_server, is_asked_for=is_asked_for)
    told = {arm.name: arm.describe() for arm in arms.usable}
    results = Results()
    is_complete = _run(arms.usable, plan, results)
    report = Report(taken_at, host, plan, describe_model(plan.model), told, arms.skipped, results, is_complete)
    text = markdown(report)
    click.echo(text)
    if out is not None:
        _write(report, text, out)
    if not is_complete:
        return program.EXIT_INTERRUPTED
    return program.EXIT_FAILURE if results.failures else 0


def _run(arms: Sequence[Arm], plan: BenchPlan, results: Results) -> bool:
    """Fill `results`; whether that went to the end. Ctrl-C and SIGTERM stop what runs, and what there is is kept."""
    terminated = asyncio.Event()

    async def turns() -> None:
        task = asyncio.current_task()
        assert task is not None

        def terminate(running: asyncio.Task[None] = task) -> None:
            terminated.set()
            running.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
        await run_turns(arms, plan, results, _say)

    try:
        loop.run(turns())
    except KeyboardInterrupt:
        return False
    except asyncio.CancelledError:
        if not terminated.is_set():
            raise
        return False
    return True


def _write(report: Report, text: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"bench-{report.taken_at:%Y%m%dT%H%M%SZ}"
    (folder / f"{stem}.json").write_bytes(orjson.dumps(document(report), option=orjson.OPT_INDENT_2))
    (folder / f"{stem}.md").write_text(text)
    _say(f"written: {folder / stem}.json and .md")


def _say(text: str) -> None:
    click.echo(text, err=True)
