"""A worker that answers by script, on the real queue and journals: what an edge meets, without an engine."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from broker.claims import Claim, ClaimOutcome
from broker.connection import Connection
from broker.lease import Lease
from broker.live_claim import claim_for
from broker.presence import Presence
from broker.pull import PullLoop
from broker.worker_control import Listening, serve_control, subscribe_cancels
from schemas.control import ServedModel, WorkerAdvert
from schemas.errors import ServingError
from schemas.events import FinishReason, Usage
from schemas.requests import ChatPrompt, GenerateRequest, TextPrompt

FINGERPRINT = "fp_test"
Script = Callable[["Run"], Awaitable[None]]


class Run:
    """One request in a script's hands."""

    def __init__(self, request: GenerateRequest, claim: Claim, lease: Lease) -> None:
        self.request = request
        self.lease = lease
        self.claim = claim
        self.cancelled = asyncio.Event()

    @property
    def prompt_text(self) -> str:
        """The prompt, or the last message of a chat."""
        prompt = self.request.prompt
        if isinstance(prompt, ChatPrompt):
            return prompt.messages[-1].content
        return prompt.text if isinstance(prompt, TextPrompt) else " ".join(map(str, prompt.token_ids))

    async def say(self, *pieces: str) -> None:
        """One delta for each piece."""
        for piece in pieces:
            await self.claim.delta([len(self.claim.token_ids)], [piece])

    async def finish(self, *pieces: str, reason: FinishReason = FinishReason.STOP, prompt_tokens: int = 3) -> None:
        count = len(self.claim.token_ids)
        usage = Usage(prompt_tokens, count + len(pieces))
        await self.claim.finish(reason, usage, list(range(count, count + len(pieces))), list(pieces))

    async def fail(self, error: ServingError) -> None:
        await self.claim.fail(error.code, error.message, retryable=error.retryable, param=error.param)


async def echo(run: Run) -> None:
    """Answers with the prompt, a token for each word."""
    words = run.prompt_text.split(" ")
    pieces = [word if index == 0 else f" {word}" for index, word in enumerate(words)]
    limit = run.request.sampling.max_tokens
    if limit is not None and len(pieces) > limit:
        await run.say(*pieces[:limit])
        await run.finish(reason=FinishReason.LENGTH)
    else:
        await run.say(*pieces)
        await run.finish("")


class ScriptedWorker:
    """Runs `script` for each request it pulls, at most `slots` at once. `runs` are all it ever started."""

    def __init__(
        self,
        connection: Connection,
        script: Script = echo,
        *,
        model: str = "echo",
        worker_id: str = "w1",
        slots: int = 4,
        context: int = 2048,
        has_chat_template: bool = True,
    ) -> None:
        self.script = script
        self.runs: list[Run] = []
        self.started = asyncio.Event()
        self.worker_id = worker_id
        self._connection = connection
        self._slots = slots
        self._served = ServedModel(
            id=model,
            backend="echo",
            reason="asked for",
            fingerprint=FINGERPRINT,
            context=context,
            slots=slots,
            max_token_bytes=8,
            bytes_per_token=4.0,
            has_chat_template=has_chat_template,
        )
        self._held: set[int] = set()
        self._is_dead = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._presence = Presence(connection, self._advert)
        self._pull = PullLoop(
            connection, model, worker_id=worker_id, on_lease=self._take, credit=lambda: slots - len(self._tasks)
        )
        self._listening: list[Listening] = []

    async def start(self) -> None:
        self._listening = [
            await serve_control(self._connection, self.worker_id, self._no_drain, self.in_hand),
            await subscribe_cancels(self._connection, self._on_cancel),
        ]
        await self._presence.start()
        await self._pull.start()

    async def in_hand(self) -> set[int]:
        await self._pull.handed_over()
        return self._held

    async def die(self) -> None:
        """As SIGKILL does: it no longer answers, and settles nothing. Its connection is gone."""
        self._is_dead = True
        for task in self._tasks:
            task.cancel()
        await self._connection.close()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for listening in self._listening:
            await listening.close()
        await self._presence.withdraw()
        # No need to wait until its last pull has run out: nothing is published any more.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await self._pull.stop()

    def _advert(self) -> WorkerAdvert:
        return WorkerAdvert(
            id=self.worker_id, host="here", pid=1, version="0", models=(self._served,), free_slots=self._slots
        )

    async def _no_drain(self) -> None:
        return

    def _on_cancel(self, request_id: str) -> None:
        for run in self.runs:
            if run.request.request_id == request_id:
                run.cancelled.set()

    def _take(self, lease: Lease) -> None:
        task = asyncio.create_task(self._run(lease))
        self._tasks.add(task)
        self._held.add(lease.stream_seq)
        task.add_done_callback(lambda _: self._held.discard(lease.stream_seq))
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._pull.wake()
        if not task.cancelled() and not self._is_dead:
            task.result()

    async def _run(self, lease: Lease) -> None:
        request = await lease.request()
        claim = claim_for(self._connection, request, lease, worker_id=self.worker_id, fingerprint=FINGERPRINT)
        outcome = await claim.acquire()
        if outcome is ClaimOutcome.SETTLED:
            await lease.ack()
            return
        run = Run(request, claim, lease)
        self.runs.append(run)
        self.started.set()
        await self.script(run)
