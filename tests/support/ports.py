"""Ports for servers that a test starts, kills and starts again in the same place."""

import secrets
import socket

# Below those that systems hand out by themselves (Linux from 32768, others from 49152): while a server is down, no
# connection on its way out may sit down in its place.
_RANGE = range(16_384, 32_000)


def free_port() -> int:
    return free_ports(1)[0]


def free_ports(number: int) -> list[int]:
    """Different ones. Not drawn from `random`, which every process of a run seeds alike."""
    ports: list[int] = []
    while len(ports) < number:
        port = secrets.choice(_RANGE)
        if port not in ports and _is_free(port):
            ports.append(port)
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
