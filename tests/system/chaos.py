"""A soak: clients stream from a real stack while parts of it are killed at random. `make chaos` runs it.

Each answer must equal the undisturbed one, byte for byte, and at the end nothing may be left behind. The seed is
printed; with the same seed the same blows are dealt in the same order.
"""

import asyncio
import os
import random
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

import click
import openai

from tests.system.broker_state import QueueState, queue_state
from tests.system.stack import KEY, Stack, echo_config, running, until

CLIENTS = 8
WORKERS = 2
NUM_TOKENS = 120
NUM_PROMPTS = 12
# Time for a takeover between two blows: the soak shows that each is survived, not how many at once.
PAUSE_S = (1.0, 4.0)


class Soak:
    """The load, the blows, and what came of them."""

    def __init__(self, stack: Stack, seed: int) -> None:
        self._stack = stack
        self._random = random.Random(seed)
        self._expected: dict[int, str] = {}
        self._is_over = False
        self.num_answers = 0
        self.num_left = 0
        self.blows: Counter[str] = Counter()

    async def run(self, seconds: float) -> None:
        async with openai.AsyncOpenAI(
            base_url=f"{self._stack.url}/v1", api_key=KEY, max_retries=0, timeout=180
        ) as client:
            for number in range(NUM_PROMPTS):
                self._expected[number] = await self._answer(client, number)
            clients = [asyncio.create_task(self._load(client, random.Random(n))) for n in range(CLIENTS)]
            ends_at = time.monotonic() + seconds
            while time.monotonic() < ends_at:
                await asyncio.sleep(self._random.uniform(*PAUSE_S))
                await self._strike()
            self._is_over = True
            await asyncio.gather(*clients)

    async def _strike(self) -> None:
        blow = self._random.choice(["kill worker", "stop worker", "kill broker"])
        run = self._stack.run
        if blow == "kill broker":
            pid = run["nats"]["pid"]
        else:
            workers = run["workers"]
            if len(workers) < WORKERS:
                return  # one is still on its way back
            pid = self._random.choice(workers)["pid"]
        try:
            os.kill(pid, signal.SIGTERM if blow == "stop worker" else signal.SIGKILL)
        except ProcessLookupError:
            return
        self.blows[blow] += 1

    async def _load(self, client: openai.AsyncOpenAI, chances: random.Random) -> None:
        while not self._is_over:
            number = chances.randrange(NUM_PROMPTS)
            if chances.random() < 0.2:
                await self._answer(client, number, leave_after=chances.randrange(1, 20))
                self.num_left += 1
                continue
            answer = await self._answer(client, number)
            if answer != self._expected[number]:
                raise AssertionError(f"prompt {number}: {answer!r} is not {self._expected[number]!r}")
            self.num_answers += 1

    async def _answer(self, client: openai.AsyncOpenAI, number: int, *, leave_after: int | None = None) -> str:
        parts: list[str] = []
        async with await client.completions.create(
            model="echo",
            prompt=f"prompt {number}",
            max_tokens=NUM_TOKENS,
            temperature=0.9 if number % 2 else 0.0,
            seed=number,
            stream=True,
            extra_body={"ignore_eos": True},
        ) as stream:
            async for chunk in stream:
                parts += [choice.text for choice in chunk.choices]
                if leave_after is not None and len(parts) >= leave_after:
                    break
        return "".join(parts)


@click.command()
@click.option("--seconds", type=click.FloatRange(1), default=120, show_default=True, help="How long blows are dealt.")
@click.option("--seed", type=int, help="Which blows. [default: a new one, printed]")
def main(seconds: float, seed: int | None) -> None:
    """Kill workers and the broker at random under load, and compare every answer with the undisturbed one."""
    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    click.echo(f"seed {seed}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = echo_config(folder, "echo:random?rate=60", sequences=CLIENTS, no_worker="queue")
        with running(folder / "data", "--config", str(config), "--workers", str(WORKERS)) as stack:
            soak = Soak(stack, seed)
            asyncio.run(soak.run(seconds))
            until(lambda: queue_state(stack) == QueueState(0, 0), "everything is settled")
    blows = ", ".join(f"{count} x {blow}" for blow, count in sorted(soak.blows.items()))
    click.echo(f"{soak.num_answers} answers equal, {soak.num_left} clients left in between; {blows}")


if __name__ == "__main__":
    main()
