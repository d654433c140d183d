"""Listening sockets of processes are read from /proc."""

import os
import socket

import pytest

from run.processes.listening_sockets import ListeningSocket, listening_sockets


@pytest.mark.parametrize(
    ("family", "host", "loopback"),
    [
        (socket.AF_INET, "127.0.0.1", True),
        (socket.AF_INET, "0.0.0.0", False),
        (socket.AF_INET6, "::1", True),
        (socket.AF_INET6, "::", False),
    ],
)
def test_a_listening_socket_is_found_with_its_address(family, host, loopback):
    with socket.socket(family) as one:
        one.bind((host, 0))
        port = one.getsockname()[1]
        assert ListeningSocket(os.getpid(), host, port) not in (
            listening_sockets([os.getpid()]) or []
        )  # bound, not listening
        one.listen()
        found = [known for known in listening_sockets([os.getpid()]) or [] if known.port == port]
        assert found == [ListeningSocket(os.getpid(), host, port)]
        assert found[0].is_loopback is loopback


def test_an_address_of_ipv4_in_ipv6_is_loopback():
    assert ListeningSocket(1, "::ffff:127.0.0.1", 80).is_loopback
    assert not ListeningSocket(1, "::ffff:10.0.0.1", 80).is_loopback


def test_a_process_that_is_gone_listens_on_nothing():
    assert listening_sockets([2**22 + 1]) == []
