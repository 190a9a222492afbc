"""The servers that a URL names."""

from __future__ import annotations

import pytest

from app.servers import each_server


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql+asyncpg://ada:p%40ss@one:1/broker", ["postgresql://ada:p%40ss@one:1/broker"]),
        (
            "postgres://ada:x@one:1,other/broker?sslmode=require",
            [
                "postgresql://ada:x@one:1/broker?sslmode=require",
                "postgresql://ada:x@other/broker?sslmode=require",
            ],
        ),
        ("postgresql://one,[::1]:2", ["postgresql://one", "postgresql://[::1]:2"]),
    ],
)
def test_a_url_is_taken_apart_into_one_for_each_of_its_servers(url: str, expected: list[str]) -> None:
    assert each_server(url) == expected


def test_a_socket_in_a_folder_is_a_server_too() -> None:
    assert each_server("postgresql://%2Frun%2Fpostgresql/broker") == [
        "postgresql://%2Frun%2Fpostgresql/broker"
    ]
