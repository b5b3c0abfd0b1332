"""The command line of the benchmark."""

import sys
from pathlib import Path

import click

from ops.bench.arms import NAMES, default_names
from ops.bench.cells import ALL, DEFAULT, Cell
from ops.bench.option_types import arm_names, cells, counts
from ops.bench.page import DEFAULT_PAGE
from ops.bench.plan import BenchPlan, PeerPaths
from ops.bench.quality.gate import QUICK as QUICK_QUALITY
from ops.bench.quality.gate import Effort
from ops.bench.run import Run, bench
from ops.bench.stack.sizes import QUICK, StackSizes
from ops.errors import CannotStart, CommandError
from ops.serving.plan import DEFAULT_SOURCE
from ops.serving.sources import SourceKind, resolve
from workers.runners.machine import num_processors
from workers.runners.remembered import default_cache_file

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
@click.option(
    "--vllm-model", type=FOLDER, help="Folder with the model's weights as safetensors. [default: made of the GGUF file]"
)
@click.option("--litellm", type=COMMAND, help="LiteLLM's command, to compare the edge with its proxy.")
@click.option(
    "--quality/--no-quality", default=True, show_default=True, help="Whether each backend is compared with FP32 first."
)
@click.option(
    "--quick",
    is_flag=True,
    help="A few of everything in the cells of the stack, and a short text for the quality: no figures to rely on.",
)
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
    quality: bool,
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

    Tables go to stdout, progress to stderr. Exit code 1 when an arm failed, when one of ours is too far from FP32, or
    when prompts had another length than was meant; 3 when an arm that was asked for cannot run.
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
        converted=(out or default_cache_file().parent / "bench") / "converted",
    )
    if context is not None and context < plan.min_context:
        raise click.UsageError(
            f"--context must be at least {plan.min_context} for these prompts and --max-tokens {max_tokens}"
        )
    effort = QUICK_QUALITY if quick else Effort()
    run = Run(
        plan,
        plan.settings(context),
        litellm,
        QUICK if quick else StackSizes(),
        effort if quality else None,
        is_asked_for=arms is not None,
    )
    return bench(run, out, write_docs=write_docs)


def run() -> int:
    """Run the command with the process's arguments; returns the exit code."""
    try:
        code: int = command.main(sys.argv[1:], prog_name="python -m ops.bench", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except CommandError as error:
        click.echo(f"error: {error}", err=True)
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
