"""Memory of a stream that is open and waits for its next token."""

import asyncio
from pathlib import Path

from ops.bench.arm import Server
from ops.bench.connection import REQUEST_LIMIT_S, chat_request
from ops.bench.errors import RequestFailed
from ops.bench.memory import resident_bytes
from ops.bench.our_stack import running_stack
from ops.bench.stack.overhead import Say
from ops.bench.stack.results import IdleStreams
from ops.bench.stack.throughput import EDGE

# Tokens come so seldom that nothing else happens, and each stream has many to wait for.
_EVERY_S = 5
_TEXT = "x" * 100
_CONTEXT = 512
_BATCH_TOKENS = 2**16
_WARM_UP_STREAMS = 50
_BROKER = "nats-server"
_CONTENT = b'"content":"x"'


async def idle_streams(num_streams: int, folder: Path, say: Say) -> IdleStreams:
    """Open so many streams, each under way, and look at the edge. Raises ArmFailed, RequestFailed."""
    model: dict[str, str | int] = {
        "source": f"echo:repeat?rate={1 / _EVERY_S:g}",
        "backend": "echo",
        "sequences": num_streams,
        "context": _CONTEXT,
        "batch_tokens": _BATCH_TOKENS,
        "queue_max": num_streams,
        "queue_max_tokens": 0,
    }
    async with running_stack(folder, model) as server:
        await _opened(server, min(_WARM_UP_STREAMS, num_streams))
        before, broker_before = _memory(server)
        opened, broker_opened = await _opened(server, num_streams)
        found = IdleStreams(num_streams, before, opened, broker_before, broker_opened)
        say(f"  {num_streams} streams: {found.bytes_per_stream / 1024:.1f} KiB of the edge each")
        return found


def _memory(server: Server) -> tuple[int, int]:
    """Of the edge and of the broker."""
    return resident_bytes(server.processes[EDGE]), resident_bytes(server.processes[_BROKER])


async def _opened(server: Server, num_streams: int) -> tuple[int, int]:
    """The memory once each of so many streams has brought a token; all are left again."""
    writers: list[asyncio.StreamWriter] = []
    try:
        async with asyncio.timeout(REQUEST_LIMIT_S):
            await asyncio.gather(*(_open(server, writers) for _ in range(num_streams)))
        return _memory(server)
    except TimeoutError:
        raise RequestFailed(f"{num_streams} streams did not all begin within {REQUEST_LIMIT_S:.0f} s") from None
    finally:
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


async def _open(server: Server, writers: list[asyncio.StreamWriter]) -> None:
    """One stream, read up to its first token."""
    host, port, _ = server.target
    try:
        reader, writer = await asyncio.open_connection(host, port)
        writers.append(writer)
        writer.write(chat_request(server.target, _TEXT, len(_TEXT)))
        head = await reader.readuntil(b"\r\n\r\n")
        status = head.split(b"\r\n")[0]
        if b" 200 " not in status:
            raise RequestFailed(f"a stream was refused: {status.decode(errors='replace')}")
        await reader.readuntil(_CONTENT)
    except (OSError, asyncio.IncompleteReadError) as error:
        raise RequestFailed(f"a stream broke: {error}") from None
