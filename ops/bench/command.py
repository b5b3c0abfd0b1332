"""The command line of the benchmark."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import click
import orjson

from ops.bench.arm import Arm
from ops.bench.arms import NAMES, default_names, make_arm
from ops.bench.cells import ALL, DEFAULT, STACK, Cell
from ops.bench.document import Report, describe_model, document, now
from ops.bench.errors import ArmUnavailable
from ops.bench.host import this_host
from ops.bench.markdown import markdown
from ops.bench.option_types import arm_names, cells, counts
from ops.bench.page import DEFAULT_PAGE, write_page
from ops.bench.plan import BenchPlan, PeerPaths
from ops.bench.stack.cells import run_stack_cells
from ops.bench.stack.sizes import QUICK, StackSizes
from ops.bench.turns import run_turns
from ops.cli import loop, program
from ops.errors import CannotStart, CommandError
from ops.serving.plan import DEFAULT_SOURCE
from ops.serving.sources import SourceKind, resolve
from workers.runners.machine import num_processors

COMMAND = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.option(
    "--arms", callback=arm_names, help=f"Servers to measure, of {', '.join(NAMES)}. [default: those that can run]"
)
@click.option(
    "--cells",
    "chosen",
    callback=cells,
    default=",".join(DEFAULT),
    show_default=True,
    help=f"What to measure, of {', '.join((*Cell, ALL))}.",
)
@click.option("--concurrency", callback=counts, default="1,8,32", show_default=True, help="Clients of each load.")
@click.option(
    "--long-concurrency", callback=counts, default="4,8", show_default=True, help="Those of each load of long texts."
)
@click.option(
    "--shared",
    type=click.IntRange(0),
    default=16,
    show_default=True,
    help="Clients of a last load, whose prompts all begin with the same 300 words; 0 leaves it out.",
)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Turns of every arm.")
@click.option(
    "--requests",
    type=click.IntRange(1),
    default=12,
    show_default=True,
    help="Answers of each load at least; every client gives two or more. Half as many where texts are long.",
)
@click.option("--max-tokens", type=click.IntRange(1), default=64, show_default=True, help="Tokens of each answer.")
@click.option("--threads", type=click.IntRange(1), help="Threads of every server. [default: one per processor]")
@click.option("--context", type=click.IntRange(1), help="Tokens of each sequence. [default: what is needed]")
@click.option("--model", metavar="SOURCE", help=f"GGUF file or pkg:<package>. [default: {DEFAULT_SOURCE}]")
@click.option("--llama-server", type=COMMAND, help="Binary. [default: the installed one]")
@click.option("--vllm", type=COMMAND, help="Python of the environment that vLLM is installed in.")
@click.option("--vllm-model", type=FOLDER, help="Folder with the model's weights as safetensors, for vLLM.")
@click.option("--litellm", type=COMMAND, help="LiteLLM's command, to compare the edge with its proxy.")
@click.option("--quick", is_flag=True, help="A few of everything in the cells of the stack: no figures to rely on.")
@click.option("--out", type=FOLDER, help="Folder for the JSON and the tables.")
@click.option("--write-docs", is_flag=True, help=f"Write {DEFAULT_PAGE} from this run.")
def command(
    arms: tuple[str, ...] | None,
    chosen: tuple[Cell, ...],
    concurrency: tuple[int, ...],
    long_concurrency: tuple[int, ...],
    shared: int,
    rounds: int,
    requests: int,
    max_tokens: int,
    threads: int | None,
    context: int | None,
    model: str | None,
    llama_server: Path | None,
    vllm: Path | None,
    vllm_model: Path | None,
    litellm: Path | None,
    quick: bool,
    out: Path | None,
    write_docs: bool,
) -> int:
    """Measure this stack, on each backend, and other servers on the same model, in turn.

    \b
      make bench                                              # all that can run here
      python -m ops.bench --arms ours,llama-server --concurrency 1,8 --shared 0 --rounds 5
      python -m ops.bench --arms ours-torch,vllm --vllm elsewhere/bin/python --vllm-model ./folder
      python -m ops.bench --cells long-prompts,long-answers --long-concurrency 4
      python -m ops.bench --cells overhead,throughput,idle,backlog   # the stack itself, on the echo runner
      python -m ops.bench --arms echo                         # everything but the model

    Tables go to stdout, progress to stderr. Exit code 1 when an arm failed, 3 when an arm that was asked for cannot
    run.
    """
    plan = BenchPlan(
        model=_find_model(model),
        arms=arms or default_names(),
        concurrency=concurrency,
        shared=shared,
        rounds=rounds,
        requests=requests,
        max_tokens=max_tokens,
        threads=threads or num_processors(),
        context=0,
        peers=PeerPaths(llama_server, vllm, vllm_model),
        cells=chosen,
        long_concurrency=long_concurrency,
    )
    if context is not None and context < plan.min_context:
        raise click.UsageError(
            f"--context must be at least {plan.min_context} for these prompts and --max-tokens {max_tokens}"
        )
    run = Run(plan, plan.settings(context), litellm, QUICK if quick else StackSizes(), is_asked_for=arms is not None)
    return _bench(run, out, write_docs=write_docs)


class Run(NamedTuple):
    """What was asked for."""

    plan: BenchPlan
    parts: tuple[BenchPlan, ...]
    litellm: Path | None
    sizes: StackSizes
    is_asked_for: bool


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


def _check_arms(plan: BenchPlan, skipped: dict[str, str], *, is_asked_for: bool) -> list[Arm]:
    """Those that will run; why the rest will not goes into `skipped`. Raises CannotStart for one that was asked for."""
    usable = []
    for name in plan.arms:
        arm = make_arm(name, plan)
        try:
            arm.check()
        except ArmUnavailable as error:
            if is_asked_for:
                raise CannotStart(f"arm {name}: {error}") from None
            if name not in skipped:
                _say(f"without {name}: {error}")
            skipped[name] = str(error)
        else:
            usable.append(arm)
    return usable


def _bench(run: Run, out: Path | None, *, write_docs: bool) -> int:
    report = Report(now(), this_host(), run.plan, run.parts, describe_model(run.plan.model))
    arms = [_check_arms(part, report.skipped, is_asked_for=run.is_asked_for) for part in run.parts]
    for usable in arms:
        for arm in usable:
            report.add_arm(arm.name, arm.describe())

    async def work() -> None:
        for part, usable in zip(run.parts, arms, strict=True):
            await run_turns(usable, part, report.results, _say)
        if asked := [cell for cell in run.plan.cells if cell in STACK]:
            await run_stack_cells(asked, run.sizes, run.litellm, report.stack, _say)

    report.is_complete = _run(work)
    text = markdown(report)
    click.echo(text)
    if out is not None:
        _write(report, text, out)
    if write_docs:
        write_page(text, Path(DEFAULT_PAGE))
    if not report.is_complete:
        return program.EXIT_INTERRUPTED
    return program.EXIT_FAILURE if report.results.failures or report.stack.failures else 0


def _run(work: Callable[[], Awaitable[None]]) -> bool:
    """Whether it went to the end. Ctrl-C and SIGTERM stop what runs, and what there is is kept."""
    terminated = asyncio.Event()

    async def until_terminated() -> None:
        task = asyncio.current_task()
        assert task is not None

        def terminate(running: asyncio.Task[None] = task) -> None:
            terminated.set()
            running.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
        await work()

    try:
        loop.run(until_terminated())
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
