"""A run of the benchmark: which arms can take part, the quality gate, the turns, and where the results go."""

import asyncio
import signal
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import click
import orjson

from ops.bench.arm import Arm, Server
from ops.bench.arms import PEERS, VLLM, make_arm
from ops.bench.cells import STACK
from ops.bench.document import Report, describe_model, document, now
from ops.bench.errors import ArmUnavailable
from ops.bench.host import this_host
from ops.bench.markdown import markdown
from ops.bench.our_stack import OurStack
from ops.bench.page import DEFAULT_PAGE, write_page
from ops.bench.plan import BenchPlan
from ops.bench.quality.gate import Effort, Reference, run_gate
from ops.bench.quality.peers import NotTold, ask_llama_server, ask_vllm, peer_quality
from ops.bench.quality.results import NOT_ASKED, QualityResults
from ops.bench.stack.cells import run_stack_cells
from ops.bench.stack.sizes import StackSizes
from ops.bench.token_counts import token_counter
from ops.bench.turns import Afterwards, Turns
from ops.cli import loop, program
from ops.errors import CannotStart


class Run(NamedTuple):
    """What was asked for. `quality` None: the gate is left out."""

    plan: BenchPlan
    parts: tuple[BenchPlan, ...]
    litellm: Path | None
    sizes: StackSizes
    quality: Effort | None
    is_asked_for: bool


def bench(run: Run, out: Path | None, *, write_docs: bool) -> int:
    """The exit code. Raises CannotStart."""
    report = Report(now(), this_host(), run.plan, run.parts, describe_model(run.plan.model))
    arms = [_check_arms(part, report.skipped, is_asked_for=run.is_asked_for) for part in run.parts]
    for usable in arms:
        for arm in usable:
            report.add_arm(arm.name, arm.describe())

    async def work() -> None:
        await _measure(run, arms, report)
        if asked := [cell for cell in run.plan.cells if cell in STACK]:
            await run_stack_cells(asked, run.sizes, run.litellm, report.stack, _say)

    report.is_complete = _until_done(work)
    text = markdown(report)
    click.echo(text)
    if out is not None:
        _write(report, text, out)
    if write_docs:
        write_page(text, Path(DEFAULT_PAGE))
    if not report.is_complete:
        return program.EXIT_INTERRUPTED
    return program.EXIT_FAILURE if report.has_failed else 0


async def _measure(run: Run, arms: list[list[Arm]], report: Report) -> None:
    """The gate first, of the widest plan, while no server runs."""
    with tempfile.TemporaryDirectory(prefix="inferflux-bench-", ignore_cleanup_errors=True) as folder:
        reference = None
        backends = {arm.name: arm.backend for usable in arms for arm in usable if isinstance(arm, OurStack)}
        backends = {name: backend for name, backend in backends.items() if backend != "echo"}
        if run.quality is None:
            report.quality.missing["quality"] = NOT_ASKED
        elif backends:
            widest = max(run.parts, key=lambda part: part.sequences)
            reference = await run_gate(backends, widest, run.quality, Path(folder), report.quality, _say)
        count_tokens = token_counter(run.plan.model) if run.parts else None
        for part, usable in zip(run.parts, arms, strict=True):
            await Turns(part, report.results, _say, count_tokens, _asker(reference, report.quality)).run(usable)


def _asker(reference: Reference | None, quality: QualityResults) -> Afterwards:
    """Asks each peer once how far it is from the reference, when its first turn is over."""

    async def ask(arm: Arm, server: Server) -> None:
        missing = f"quality of {arm.name}"
        if reference is None or arm.name not in PEERS or arm.name in quality.arms or missing in quality.missing:
            return
        how, shape = (ask_vllm, "prompt") if arm.name == VLLM else (ask_llama_server, "8 sequences")
        try:
            quality.arms[arm.name] = await peer_quality(server.target, how, shape, reference)
            _say(f"  mean KL {quality.arms[arm.name].worst.mean_kl:.5f} or more")
        except NotTold as error:
            quality.missing[missing] = str(error)
            _say(f"  quality not measured: {error}")

    return ask


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


def _until_done(work: Callable[[], Awaitable[None]]) -> bool:
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
