"""Listening sockets: both loopbacks, taken ports, options that accepted sockets inherit."""

import socket

import pytest

from producer.edge.listening import PortTaken, listen, listen_nearby, port_of


def close(*groups: list[socket.socket]) -> None:
    for group in groups:
        for sock in group:
            sock.close()


def test_localhost_is_both_loopbacks_on_one_port() -> None:
    sockets = listen("localhost", 0)
    try:
        assert [sock.getsockname()[0] for sock in sockets] in (["127.0.0.1", "::1"], ["127.0.0.1"])
        assert len({port_of(sock) for sock in sockets}) == 1
    finally:
        close(sockets)


def test_a_taken_port_is_named_or_passed_over() -> None:
    first = listen("127.0.0.1", 0)
    port = port_of(first[0])
    try:
        for host in ("127.0.0.1", "localhost"):
            with pytest.raises(PortTaken) as taken:
                listen(host, port)
            assert taken.value.port == port
        second = listen_nearby("127.0.0.1", port)
        assert port_of(second[0]) > port
        close(second)
    finally:
        close(first)


def test_accepted_sockets_notice_dead_peers_and_send_at_once() -> None:
    (listener,) = listen("127.0.0.1", 0)
    listener.setblocking(True)
    client = socket.create_connection(listener.getsockname())
    accepted, _ = listener.accept()
    try:
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) > 0
        if hasattr(socket, "TCP_KEEPIDLE"):
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) < 7200
    finally:
        for sock in (client, accepted, listener):
            sock.close()


def test_an_address_of_another_machine_is_an_error() -> None:
    with pytest.raises(OSError):
        listen("192.0.2.1", 0)
