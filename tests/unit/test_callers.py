"""Whose address a request has, and who counts as one caller."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.consumers.callers import Proxies, neighbourhood

NOBODY = Proxies()
OURS = Proxies((ip_network("10.0.0.0/24"), ip_network("fd12::/64"), ip_network("127.0.0.1/32")))


@pytest.mark.parametrize("peer", ["203.0.113.9", "127.0.0.1", "10.0.0.1", "2001:db8::1"])
def test_without_trust_it_is_the_peers_whatever_is_said(peer: str) -> None:
    assert NOBODY.caller(peer, ["1.2.3.4"]) == peer


def test_somebody_who_is_no_proxy_is_not_believed() -> None:
    assert OURS.caller("203.0.113.9", ["1.2.3.4", "10.0.0.7"]) == "203.0.113.9"


@pytest.mark.parametrize(
    ("forwarded", "caller"),
    [
        ([], "10.0.0.1"),
        ([""], "10.0.0.1"),
        (["198.51.100.7"], "198.51.100.7"),
        (["1.2.3.4, 198.51.100.7"], "198.51.100.7"),  # what stands left of it was made up, or may have been
        (["1.2.3.4", "198.51.100.7"], "198.51.100.7"),
        (["198.51.100.7, 10.0.0.9"], "198.51.100.7"),
        (["198.51.100.7", "10.0.0.9", "10.0.0.8,10.0.0.7"], "198.51.100.7"),
        (["10.0.0.9, 10.0.0.8"], "10.0.0.9"),
        (["198.51.100.7, unknown"], "10.0.0.1"),
        (["198.51.100.7, unknown, 10.0.0.9"], "10.0.0.9"),
        (["198.51.100.7,"], "10.0.0.1"),
        (["198.51.100.7, _hidden, 10.0.0.9"], "10.0.0.9"),
        (["198.51.100.7:4711"], "198.51.100.7"),
        (["2001:db8::7"], "2001:db8::7"),
        (["[2001:db8::7]"], "2001:db8::7"),
        (["[2001:db8::7]:4711"], "2001:db8::7"),
        (['"[2001:db8::7]:4711"'], "2001:db8::7"),
        (["2001:DB8:0::7"], "2001:db8::7"),
        (["::ffff:198.51.100.7"], "198.51.100.7"),
        (["198.51.100.7\t ,\t fd12::1"], "198.51.100.7"),
        (["198.51.100.7, 10.0.0.300"], "10.0.0.1"),
        (["198.51.100.7, 010.0.0.2"], "10.0.0.1"),
        (["198.51.100.7, " + "9" * 5000], "10.0.0.1"),
        (["198.51.100.7, " + "10.0.0.2, " * 40 + "10.0.0.3"], "10.0.0.2"),
        (["1.2.3.4, " * 5000 + "198.51.100.7"], "198.51.100.7"),
    ],
)
def test_a_proxy_is_believed_about_the_one_before_it(forwarded: list[str], caller: str) -> None:
    assert OURS.caller("10.0.0.1", forwarded) == caller


def test_a_peer_that_is_mapped_is_the_same_proxy() -> None:
    assert OURS.caller("::ffff:10.0.0.1", ["198.51.100.7"]) == "198.51.100.7"


def test_a_peer_without_an_address_stays_so() -> None:
    assert OURS.caller(None, ["1.2.3.4"]) is None
    assert OURS.caller("testclient", ["1.2.3.4"]) == "testclient"


@given(st.lists(st.text(), max_size=5))
def test_whatever_stands_there_an_address_comes_of_it(forwarded: list[str]) -> None:
    assert neighbourhood(OURS.caller("10.0.0.1", forwarded)) != "unknown"


def test_an_ipv6_subscriber_is_one_caller() -> None:
    assert neighbourhood("2001:db8:1:2::1") == neighbourhood("2001:db8:1:2:ffff::9") == "2001:db8:1:2::/64"
    assert neighbourhood("2001:db8:1:3::1") != neighbourhood("2001:db8:1:2::1")
    assert neighbourhood("::ffff:198.51.100.7") == neighbourhood("198.51.100.7") == "198.51.100.7"
    assert neighbourhood("fe80::1%eth0") == "fe80::/64"
    assert neighbourhood(None) == neighbourhood("testclient") == "unknown"
