"""Listening sockets of our own: accepted ones inherit that dead peers are noticed and small writes leave at once."""

import errno
import socket
from typing import NamedTuple

_LOOPBACKS = ("127.0.0.1", "::1")
_BACKLOG = 2048
_KEEPALIVE_IDLE_S = 30
_KEEPALIVE_INTERVAL_S = 10
_KEEPALIVE_PROBES = 3
# A peer that acknowledges nothing for this long is gone. Longer than a slow reader has, as those are cut by us.
_GONE_AFTER_S = 60.0
_MOVES = 100


class PortTaken(Exception):
    """Somebody else listens there."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"port {port} on {host} is taken")
        self.host = host
        self.port = port


class SocketOptions(NamedTuple):
    """What accepted sockets inherit. `send_buffer_bytes` None leaves the size to the system, which means megabytes."""

    send_buffer_bytes: int | None = None
    gone_after_s: float = _GONE_AFTER_S


_SYSTEM_DEFAULTS = SocketOptions()


def listen(host: str, port: int, options: SocketOptions = _SYSTEM_DEFAULTS) -> list[socket.socket]:
    """Sockets for a host; `localhost` is 127.0.0.1 and, where there is IPv6, ::1, on the same port.

    Port 0 takes a free one. Raises PortTaken, or OSError when the address is not of this machine.
    """
    if host != "localhost":
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return [_bind(family, str(address[0]), port, options)]
    first = _bind(socket.AF_INET, _LOOPBACKS[0], port, options)
    try:
        return [first, _bind(socket.AF_INET6, _LOOPBACKS[1], port_of(first), options)]
    except PortTaken:
        first.close()
        if port == 0:
            return listen(host, 0, options)
        raise
    except OSError:
        return [first]


def listen_nearby(host: str, port: int) -> list[socket.socket]:
    """As `listen`, but a taken port is passed over for the next."""
    for candidate in range(port, port + _MOVES):
        try:
            return listen(host, candidate)
        except PortTaken:
            if port == 0:
                raise
    raise PortTaken(host, port)


def port_of(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port


def _bind(family: socket.AddressFamily, address: str, port: int, options: SocketOptions) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        _set_options(sock, options)
        sock.bind((address, port))
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(address, port) from None
        raise
    return sock


def _set_options(sock: socket.socket, options: SocketOptions) -> None:
    if options.send_buffer_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, options.send_buffer_bytes)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Names differ between systems; what is absent is done without.
    for name, value in (
        ("TCP_KEEPIDLE", _KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", _KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", _KEEPALIVE_PROBES),
        ("TCP_USER_TIMEOUT", int(options.gone_after_s * 1000)),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
