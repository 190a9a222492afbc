"""Which addresses this service may connect to."""

from __future__ import annotations

import pytest

from app.outbound.addresses import AddressRefused, Reachable, parse_opened

PUBLIC = Reachable()

INSIDE = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "100.127.255.255"),
    *("127.0.0.1", "127.0.0.2", "127.255.255.254", "169.254.0.1", "169.254.169.254", "172.16.0.1"),
    *("172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1"),
    *("198.19.255.255", "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.255", "240.0.0.1"),
    *("255.255.255.255", "168.63.129.16"),
    *(
        "::",
        "::1",
        "::2",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::ffff:0:127.0.0.1",
    ),
    *("64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b:1::8.8.8.8", "100::1"),
    *("2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:10::1", "2001:20::1", "2001:db8::1"),
    *("2002:7f00:1::", "2002:808:808::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fdff::1"),
    *("fe80::1", "fe80::1%eth0", "2606:4700::1111%eth0", "fec0::1", "ff02::1"),
]
OUTSIDE = [
    *("1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.0.1.1"),
    *(
        "192.167.255.255",
        "198.17.0.1",
        "223.255.255.255",
        "2606:4700::1111",
        "2a00:1450::1",
        "2001:4860::8888",
    ),
    "64:ff9b::8.8.8.8",
]


@pytest.mark.parametrize("address", INSIDE)
def test_what_is_not_public_is_refused(address: str) -> None:
    assert not PUBLIC.admits(address)


@pytest.mark.parametrize("address", OUTSIDE)
def test_what_is_public_is_admitted(address: str) -> None:
    assert PUBLIC.admits(address)


@pytest.mark.parametrize(
    "address", ["", "localhost", "1.2.3", "1.2.3.4.5", "01.2.3.4", "0x8.8.8.8", "8.8.8.8 ", "８.8.8.8"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    assert not PUBLIC.admits(address)


def test_development_opens_loopback_and_nothing_else() -> None:
    development = Reachable(loopback=True)
    assert [address for address in INSIDE if development.admits(address)] == [
        *("127.0.0.1", "127.0.0.2", "127.255.255.254", "::1", "64:ff9b::127.0.0.1")
    ]


def test_operators_open_networks() -> None:
    opened = Reachable((parse_opened("10.20.0.0/28"), parse_opened("fd12::/64")))
    admitted = ["10.20.0.15", "fd12::7", "64:ff9b::10.20.0.1", "8.8.8.8"]
    refused = ["10.20.0.16", "fd12:0:0:1::7", "127.0.0.1", "::ffff:10.20.0.1", "169.254.169.254"]
    assert [address for address in admitted + refused if opened.admits(address)] == admitted


@pytest.mark.parametrize(
    "text",
    [
        *(
            "0.0.0.0/0",
            "::/0",
            "127.0.0.0/8",
            "127.0.0.1",
            "169.254.169.254/32",
            "168.0.0.0/6",
            "224.0.0.0/8",
        ),
        *("::1", "fe80::/64", "::ffff:10.0.0.0/104", "fd00::/8", "10.0.0.1/8", "intranet", "", "10.0.0.0/33"),
    ],
)
def test_some_networks_are_never_opened(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be networks, such as|never opened"):
        parse_opened(text)


def test_one_bad_address_refuses_the_name() -> None:
    with pytest.raises(AddressRefused) as refused:
        PUBLIC.require("idp.example", ["8.8.8.8", "10.0.0.1"])
    assert (refused.value.host, refused.value.address) == ("idp.example", "10.0.0.1")


@pytest.mark.parametrize(
    "host", ["idp.example", "1.example", "8.8.8.8", "[2606:4700::1111]", "a-1", "x0x7f.test"]
)
def test_names_and_public_addresses_pass_before_they_are_resolved(host: str) -> None:
    PUBLIC.require_host(host)


@pytest.mark.parametrize(
    "host",
    [
        *(
            "127.1",
            "127.0.1",
            "2130706433",
            "017700000001",
            "0x7f000001",
            "0X7F.1",
            "0x7f.0x0.0x0.0x1",
            "0177.0.0.1",
        ),
        *(
            "127.0.0.1.",
            "8.8.8.8.",
            "0",
            "[::1]",
            "[::ffff:7f00:1]",
            "1.2.3.4.5",
            "１２７.0.0.1",
            "8.8.8",
            "x.0x7f",
        ),
    ],
)
def test_an_address_in_any_other_form_is_refused(host: str) -> None:
    with pytest.raises(AddressRefused):
        PUBLIC.require_host(host)
