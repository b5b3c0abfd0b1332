"""One delivery at a time, for tests that look at what follows it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

from nats.aio.msg import Msg

from broker.connection import Connection
from broker.lease import Lease
from broker.roles import Role
from broker.subjects import STREAM_REQUESTS, consumer_name
from schemas.requests import PriorityClass
from tests.conftest import Broker


async def take_lease(worker: Connection, model: str = "echo") -> Lease:
    """The next delivery of any class, highest first. Waits for one."""
    inbox = worker.raw.new_inbox()
    answers: asyncio.Queue[Msg] = asyncio.Queue()
    subscription = await worker.subscribe(inbox, answers.put)
    while True:
        for priority in PriorityClass:
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{STREAM_REQUESTS}.{consumer_name(model, priority)}"
            await worker.publish(subject, json.dumps({"batch": 1, "no_wait": True}).encode(), reply=inbox)
            with contextlib.suppress(TimeoutError):  # lost with a connection
                async with asyncio.timeout(1):
                    answer = await answers.get()
                if answer.reply:
                    await subscription.unsubscribe()
                    return Lease(worker, answer.subject, answer.reply, answer.data, answer.headers)
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def handed_back(broker: Broker) -> AsyncIterator[list[int]]:
    """Stream sequences of the deliveries that are given back meanwhile, by whomever; complete at the end."""
    seqs: list[int] = []

    async def note(message: Msg) -> None:
        seqs.append(json.loads(message.data)["stream_seq"])

    inspector = await broker.server.connect(Role.INSPECTOR)
    await inspector.subscribe(f"$JS.EVENT.ADVISORY.CONSUMER.MSG_NAKED.{STREAM_REQUESTS}.>", note)
    yield seqs
    await inspector.flush()
