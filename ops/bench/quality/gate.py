"""The gate: the reference first, then every backend of ours, each in a process of its own."""

import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from ops.bench.plan import BenchPlan
from ops.bench.quality.forcing import PROMPT, shape_name
from ops.bench.quality.request import Request, Told
from ops.bench.quality.results import ArmQuality, QualityResults
from ops.calibration.request import spec_document
from ops.errors import CommandError
from ops.serving.plan import plan_models
from ops.serving.worker_models import runner_spec_of
from ops.settings.errors import SettingsError
from ops.settings.loader import load
from workers.runners.base import RunnerSpec
from workers.runners.registry import known_backends

REFERENCE = "torch"
COMMAND = (sys.executable, "-P", "-m", "ops.bench.quality.child")
LIMIT_S = 900.0
# Sequences of a step, as far as the loads have so many clients.
DECODE_SHAPES = (1, 8, 32)
_LAST_WORDS = 300

Say = Callable[[str], None]


class Effort(NamedTuple):
    """Tokens of each passage: 8 × 250 are the 2,000 that the gate is defined with."""

    num_tokens: int = 250


QUICK = Effort(num_tokens=40)


class Reference(NamedTuple):
    """The text, and the file with the logarithms after each of its tokens."""

    windows: list[list[int]]
    table: Path

    def open(self) -> npt.NDArray[np.float32]:
        table: npt.NDArray[np.float32] = np.load(self.table, mmap_mode="r")
        return table


class _Failed(Exception):
    """In one line why."""


async def run_gate(
    backends: Mapping[str, str], plan: BenchPlan, effort: Effort, folder: Path, results: QualityResults, say: Say
) -> Reference | None:
    """`backends` of our arms by their names; into `results` as it comes. `folder` holds the reference's table, some
    hundred megabytes. None when there is no reference, so that nobody can be compared."""
    say("quality: the reference")
    if (absent := known_backends()[REFERENCE].missing()) is not None:
        results.missing["quality"] = f"the reference is computed by {REFERENCE}: {absent}"
        return None
    try:
        reference = await _reference(plan, effort, folder, results)
    except _Failed as error:
        results.failures["reference"] = str(error)
        return None
    found: dict[str, ArmQuality] = {}
    for name, backend in backends.items():
        try:
            if backend not in found:
                say(f"quality: {name}")
                found[backend] = await _compare(backend, plan, reference)
                say(f"  mean KL {found[backend].worst.mean_kl:.5f}")
        except _Failed as error:
            results.failures[name] = str(error)
            say(f"  failed: {error}")
        else:
            results.arms[name] = found[backend]
    return reference


async def _reference(plan: BenchPlan, effort: Effort, folder: Path, results: QualityResults) -> Reference:
    spec = replace(_spec(plan, REFERENCE), kv_type="f32", sequences=1)
    path = folder / "reference.npy"
    request = Request(
        backend=REFERENCE,
        spec=spec_document(spec),
        table=str(path),
        parent=os.getpid(),
        num_tokens=effort.num_tokens,
    )
    told = await _ask(request)
    assert told.windows is not None
    results.reference = told.description
    results.tokens = sum(map(len, told.windows))
    return Reference(told.windows, path)


async def _compare(backend: str, plan: BenchPlan, reference: Reference) -> ArmQuality:
    request = Request(
        backend=backend,
        spec=spec_document(_spec(plan, backend)),
        table=str(reference.table),
        parent=os.getpid(),
        windows=reference.windows,
        shapes=(PROMPT, *(rows for rows in DECODE_SHAPES if rows <= plan.sequences)),
    )
    told = await _ask(request)
    return ArmQuality(told.description, backend, {shape_name(rows): one for rows, one in told.shapes.items()})


def _spec(plan: BenchPlan, backend: str) -> RunnerSpec:
    """What a worker would be told for these loads."""
    try:
        planned = plan_models(load({}, {"--model": str(plan.model), "--backend": backend}))[0]
    except (CommandError, SettingsError) as error:
        raise _Failed(str(error)) from None
    return replace(runner_spec_of(planned, None), context=plan.context, sequences=plan.sequences, threads=plan.threads)


async def _ask(request: Request) -> Told:
    """One process, to its end. Raises _Failed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INFERFLUX_")}
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            output, errors = await process.communicate(f"{request.model_dump_json()}\n".encode())
    except TimeoutError:
        raise _Failed(f"it did not end within {LIMIT_S:.0f} s") from None
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    try:
        told = Told.model_validate_json(output)
    except ValidationError:
        last = " | ".join(errors.decode(errors="replace").strip().splitlines())[-_LAST_WORDS:]
        raise _Failed(f"its process ended with {process.returncode}: {last}") from None
    if told.failure:
        raise _Failed(told.failure)
    return told
