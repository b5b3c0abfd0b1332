"""Running an edge: sockets, server, signals, drain."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, NamedTuple

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from broker.connection import BrokerConfig
from broker.errors import BrokerUnavailable
from producer.config import EdgeConfig
from producer.edge.admission import Stage
from producer.edge.app import create_app, on_serving_error
from producer.edge.exposition import exposition
from producer.edge.listening import SocketOptions, listen, listen_nearby, port_of
from producer.edge.output_filter import FilterFactory
from producer.edge.protocol import ConnectionLimits, make_protocol
from producer.edge.reload import Reloader, Reloading
from producer.edge.routes import health
from producer.edge.security_headers import SecurityHeaders
from producer.edge.services import Services, open_services
from producer.edge.tls import FollowingTls
from producer.edge.tls_door import door_to
from schemas.errors import ServingError
from schemas.tracing import NO_TRACER, Tracer

_log = structlog.stdlib.get_logger("inferflux.edge.serve")

_KEEP_ALIVE_S = 65
# After the drain's deadline: time for last events to be written.
_FAREWELL_S = 3
_TICK_S = 1.0
# How much longer than we the kernel waits for a client that takes nothing.
_KERNEL_PATIENCE_S = 30.0
_FURTHER_CONNECTIONS = 64
_SCRAPE_CONNECTIONS = 64
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
Beside = Callable[[Services], AbstractAsyncContextManager[None]]


class EdgeAddress(NamedTuple):
    """Where a running edge listens, and whether the well-known key of a fresh installation opens it."""

    url: str
    port: int
    metrics_url: str
    takes_default_key: bool = False


async def run_edge(
    config: EdgeConfig,
    broker_config: BrokerConfig,
    *,
    on_ready: Callable[[EdgeAddress], None] | None = None,
    stop: asyncio.Event | None = None,
    handle_signals: bool = True,
    extra_stages: Sequence[Stage] = (),
    filters: Sequence[FilterFactory] = (),
    reloading: Reloading | None = None,
    beside: Sequence[Beside] = (),
    tracer: Tracer = NO_TRACER,
) -> None:
    """Serve until SIGTERM, SIGINT or `stop`, then drain: streams may finish until the deadline, and are told after it.

    `on_ready` is called once requests are taken. With `reloading`, SIGHUP reads the configuration again, else only the
    certificate. What is in `beside` is open while the edge serves. A second signal ends the streams at once.

    Raises PortTaken or TlsUnusable before anything else is done, PolicyError before any request is taken, and
    BrokerUnavailable or BrokerUnsuitable, also later when the broker shuts this edge out.
    """
    stopping = stop if stop is not None else asyncio.Event()
    tls = FollowingTls(config.tls) if config.tls is not None else None
    sockets = listen(config.host, config.port, _socket_options(config))
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(_close_all, sockets)
        async with (
            open_services(config, broker_config, extra_stages=extra_stages, filters=filters, tracer=tracer) as services,
            _scrape_port(services) as metrics_url,
        ):
            server = _make_server(
                create_app(config, services),
                config.drain_timeout_s,
                _connection_limits(config),
                config.idle_timeout_s,
                tls=tls,
            )
            on_hangup = [] if tls is None else [tls.reload]
            if tls is not None:
                await stack.enter_async_context(_running(tls.follow(), "certificate"))
            if reloading is not None:
                reloader = Reloader(services, reloading.read)
                on_hangup.append(reloader.ask)
                await stack.enter_async_context(_running(reloader.run(), "reload"))
                await stack.enter_async_context(_running(reloading.follow(reloader.ask), "configuration"))
            for companion in beside:
                await stack.enter_async_context(companion(services))
            with _signals(stopping, services, on_hangup) if handle_signals else contextlib.nullcontext():
                serving = asyncio.create_task(server.serve(sockets), name="edge server")
                await _started(server, serving)
                scheme = "http" if tls is None else "https"
                address = EdgeAddress(
                    _url(config.host, sockets, scheme),
                    port_of(sockets[0]),
                    metrics_url,
                    any(key.is_default for key in services.policy.current.file_keys),
                )
                _log.info("edge listens", url=address.url, edge=config.edge_id)
                if on_ready is not None:
                    on_ready(address)
                try:
                    await _until_stopped(stopping, serving, services)
                finally:
                    await _drain(services, server, serving)


class _Server(uvicorn.Server):
    """Signals are ours, and stopping is an event, not polled for."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Accept nothing more and end once the connections are done."""
        self.should_exit = True
        self._stop.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        # A tick a second renews the Date header.
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_S):
                    await self._stop.wait()


def _socket_options(config: EdgeConfig) -> SocketOptions:
    """Of the buffer of a stream the kernel gets half: it takes twice what it is asked for, its own books included."""
    return SocketOptions(config.stream_buffer_bytes // 4, config.slow_reader_timeout_s + _KERNEL_PATIENCE_S)


def _connection_limits(config: EdgeConfig) -> ConnectionLimits:
    """Of the rest an eighth is left for the last event, which goes in whole. Besides those of calls, some may idle.

    Below TLS lies once more what TLS hands on at once: as much as it holds, and the piece that it is given last.
    """
    buffer_bytes = config.stream_buffer_bytes * 3 // 8
    if config.tls is not None:
        buffer_bytes //= 3
    return ConnectionLimits(2 * config.max_concurrent + _FURTHER_CONNECTIONS, buffer_bytes, config.header_timeout_s)


def _make_server(
    app: ASGIApp,
    drain_timeout_s: float,
    limits: ConnectionLimits,
    idle_timeout_s: float = _KEEP_ALIVE_S,
    *,
    lifespan: bool = True,
    tls: FollowingTls | None = None,
) -> _Server:
    return _Server(
        uvicorn.Config(
            SecurityHeaders(app),
            http=make_protocol(limits) if tls is None else door_to(make_protocol(limits), tls, limits.header_timeout_s),
            ws="none",
            lifespan="on" if lifespan else "off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=idle_timeout_s,  # type: ignore[arg-type]  # any number of seconds will do
            timeout_graceful_shutdown=int(drain_timeout_s) + _FAREWELL_S,
        )
    )


async def _started(server: _Server, serving: asyncio.Task[None]) -> None:
    while not server.started:
        await asyncio.wait({serving}, timeout=0.01)
        if serving.done():
            serving.result()
            raise RuntimeError("the HTTP server ended while starting")


async def _until_stopped(stopping: asyncio.Event, serving: asyncio.Task[None], services: Services) -> None:
    waiting = asyncio.create_task(stopping.wait())
    try:
        while not (waiting.done() or serving.done()):
            await asyncio.wait({waiting, serving}, timeout=_TICK_S, return_when=asyncio.FIRST_COMPLETED)
            if services.connection.is_closed:
                services.drain.expire()
                raise BrokerUnavailable("the message broker has closed the connection for good")
    finally:
        waiting.cancel()


async def _drain(services: Services, server: _Server, serving: asyncio.Task[None]) -> None:
    _log.info("draining", calls=len(services.calls))
    services.drain.begin()
    server.stop()
    timer = asyncio.get_running_loop().call_later(services.config.drain_timeout_s, services.drain.expire)
    try:
        await serving
    finally:
        timer.cancel()


@asynccontextmanager
async def _running(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    """While a task that never ends by itself runs."""
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextmanager
def _signals(stopping: asyncio.Event, services: Services, on_hangup: Sequence[Callable[[], None]]) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stopping.is_set():
            services.drain.expire()
        stopping.set()

    def hang_up() -> None:
        for callback in on_hangup:
            callback()

    handlers = dict.fromkeys(_SIGNALS, on_signal)
    if on_hangup:
        handlers[signal.SIGHUP] = hang_up
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)


@asynccontextmanager
async def _scrape_port(services: Services) -> AsyncIterator[str]:
    """The port for Prometheus and for probes: no key, never TLS, loopback unless configured."""
    config = services.config.metrics
    sockets = (listen_nearby if config.port_moves else listen)(config.host, config.port)

    async def metrics(request: Request) -> Response:
        return await exposition(services, request.headers.get("accept", ""))

    async def ready(request: Request) -> Response:
        return await health.readyz.handle(request)

    routes = [Route("/metrics", metrics), Route("/readyz", ready)]
    app = Starlette(routes=routes, exception_handlers={ServingError: on_serving_error})
    app.state.services = services
    server = _make_server(app, 0, ConnectionLimits(_SCRAPE_CONNECTIONS), lifespan=False)
    serving = asyncio.create_task(server.serve(sockets), name="metrics server")
    try:
        await _started(server, serving)
        url = f"{_url(config.host, sockets)}/metrics"
        _log.info("serving metrics", url=url)
        yield url
    finally:
        server.stop()
        await asyncio.wait({serving})
        _close_all(sockets)


def _url(host: str, sockets: Sequence[socket.socket], scheme: str = "http") -> str:
    shown = f"[{host}]" if ":" in host else host
    if host in ("0.0.0.0", "::"):
        shown = "127.0.0.1"
    return f"{scheme}://{shown}:{port_of(sockets[0])}"


def _close_all(sockets: Sequence[socket.socket]) -> None:
    for sock in sockets:
        sock.close()
