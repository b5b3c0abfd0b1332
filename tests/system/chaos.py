"""A soak: clients ask a real stack while parts of it are killed, frozen and told to leave at random. `make chaos`.

Each answer must equal the undisturbed one, byte for byte, and at the end the broker's own records must show that every
accepted request ended once and that nothing is left behind. The seed is printed; with the same seed the same blows are
dealt in the same order.
"""

import asyncio
import itertools
import random
import tempfile
import time
from pathlib import Path

import click

from tests.support.ports import free_port
from tests.system.beside import Beside
from tests.system.blows import Blows
from tests.system.callers import Callers
from tests.system.invariants import Findings, check_invariants
from tests.system.journals import open_journals
from tests.system.stack import Stack, echo_config, running

CLIENTS = 8
WORKERS = 3
NUM_TOKENS = 120
RATE = 60
# Time for a takeover between two blows: the soak shows that each is survived, not how many at once.
PAUSE_S = (0.5, 4.0)


async def soak(stack: Stack, blows: Blows, callers: Callers, seconds: float, chances: random.Random) -> Findings:
    is_over = asyncio.Event()

    async def deal() -> None:
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at:
            await asyncio.sleep(chances.uniform(*PAUSE_S))
            await blows.strike()
        await blows.relent()
        is_over.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(deal())
        group.create_task(callers.run(CLIENTS, is_over))
    async with open_journals(stack) as journals:
        return await check_invariants(stack, journals, callers.asked)


@click.command()
@click.option("--seconds", type=click.FloatRange(1), default=600, show_default=True, help="How long blows are dealt.")
@click.option("--seed", type=int, help="Which blows. [default: a new one, printed]")
@click.option(
    "--keep", type=click.Path(path_type=Path), help="Folder for logs and data. [default: one that is removed]"
)
def main(seconds: float, seed: int | None, keep: Path | None) -> None:
    """Strike at workers, edges and broker under load, compare every answer, and look at the records at the end."""
    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    click.echo(f"seed {seed}")
    with tempfile.TemporaryDirectory() as name:
        folder = keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        run(folder, seconds, seed)


def run(folder: Path, seconds: float, seed: int) -> None:
    config = echo_config(folder, f"echo:random?rate={RATE}", sequences=CLIENTS, no_worker="queue")
    with running(folder / "data", "--config", str(config), "--workers", str(WORKERS)) as stack:
        port, numbers, chances = str(free_port()), itertools.count(1), random.Random(seed)
        blows = Blows(stack, lambda: Beside(stack, "edge", f"beside-{next(numbers)}", "--port", port), WORKERS, chances)
        callers = Callers(blows.edge_urls, seed, NUM_TOKENS)
        try:
            found = asyncio.run(soak(stack, blows, callers, seconds, chances))
        except BaseException:
            click.echo(f"failed with seed {seed} after {dict(blows.dealt)}", err=True)
            raise
        finally:
            blows.close()
    click.echo(f"blows: {_listed(blows.dealt)}")
    click.echo(f"clients: {_listed(callers.counts)}")
    silences = sorted(asked.arrival.longest_silence for asked in callers.asked)
    click.echo(
        "longest silence within a stream: "
        + ", ".join(f"p{share:g} {silences[int(len(silences) * share / 100)]:.2f} s" for share in (50, 90, 99, 99.9))
    )
    click.echo(
        f"{found.journals} journals, each ended once and as it should; {found.takeovers} takeovers;"
        f" {found.unsubmitted} heads of requests that were not accepted"
    )


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} x {what}" for what, count in sorted(counts.items()))


if __name__ == "__main__":
    main()
