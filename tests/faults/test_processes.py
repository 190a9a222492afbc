"""Processes that are ended and started again find their ports as they left them."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.faults.processes import own_port

OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")


def test_no_port_is_given_twice_nor_one_that_an_outgoing_connection_might_be_given() -> None:
    ports = [own_port() for _ in range(20)]
    assert len(set(ports)) == 20
    first = int(OUTGOING.read_text().split()[0]) if OUTGOING.exists() else 32768
    assert max(ports) < first


def test_a_port_that_somebody_listens_on_is_passed_over() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", own_port() + 1))
        assert own_port() != taken.getsockname()[1]
