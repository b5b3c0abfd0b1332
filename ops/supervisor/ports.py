"""Ports: is one free, and what to say when it is not."""

import errno
import socket

from ops.errors import CannotStart
from ops.settings.settings import NatsSettings, ServerSettings

PORTS_TRIED = 100


def require_http_port(server: ServerSettings) -> None:
    """Raises CannotStart when the HTTP port is taken. A default port says which flag helps."""
    if server.http_port == 0 or all(is_free(address, server.http_port) for address in addresses(server.host)):
        return
    if server.is_port_given:
        raise CannotStart(f"port {server.http_port} on {server.host} is taken by another program")
    free = next((port for port in range(server.http_port + 1, 65536) if is_free("127.0.0.1", port)), 0)
    raise CannotStart(f"port {server.http_port} on {server.host} is taken by another program; try --port {free}")


def choose_nats_port(nats: NatsSettings) -> int | None:
    """Port for the embedded server: the given one, or the first free one from the default on. None takes any.

    Raises CannotStart when a given port is taken.
    """
    if nats.port == 0:
        return None
    if nats.is_port_given:
        if not is_free("127.0.0.1", nats.port):
            raise CannotStart(f"NATS port {nats.port} is taken by another program; choose another --nats-port")
        return nats.port
    return next((port for port in range(nats.port, nats.port + PORTS_TRIED) if is_free("127.0.0.1", port)), None)


def addresses(host: str) -> list[str]:
    """The addresses a host name listens on; `localhost` is both loopbacks, where the machine has them."""
    if host.lower() == "localhost":
        return ["127.0.0.1", "::1"] if socket.has_dualstack_ipv6() else ["127.0.0.1"]
    return [host.strip("[]")]


def is_free(address: str, port: int) -> bool:
    """Whether a server could listen there now. An address this machine does not have counts as free."""
    try:
        family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((address, port))
            # On some systems SO_REUSEADDR lets a second bind through; listening does not lie.
            probe.listen(1)
    except OSError as error:
        return error.errno != errno.EADDRINUSE
    return True
