"""What the driver of bench/ sends, and how it counts what comes back: as a process of its own, against sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from bench.load import Load, Outcome
from bench.stage import Driver


class Server:
    """Answers what it is told to, over and over, and keeps what it was asked for."""

    def __init__(self, *answers: bytes, piece: int = 1 << 16, held_seconds: float = 0.0) -> None:
        self.asked: list[str] = []
        self.connections = 0
        self._answers = answers
        self._piece = piece
        self._held_seconds = held_seconds

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                said = self._answers[len(self.asked) % len(self._answers)]
                self.asked.append(head.decode().partition("\r\n")[0])
                await asyncio.sleep(self._held_seconds)
                for begin in range(0, len(said), self._piece):
                    writer.write(said[begin : begin + self._piece])
                    await writer.drain()
                if b"connection: close" in said:
                    break
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


def said(status: int = 200, *headers: str, body: str = "token") -> bytes:
    lines = [f"HTTP/1.1 {status} Said", f"content-length: {len(body)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


async def sent(server: Server, **load: Any) -> Outcome:
    """By the driver, as a process of its own."""
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with listening:
        with driver() as process:
            return await asyncio.to_thread(
                process.send, Load(port, **{"path": "/", "connections": 2, **load})
            )


@contextmanager
def driver() -> Iterator[Driver]:
    process = Driver()
    try:
        yield process
    finally:
        process.close()


async def test_a_closed_loop_sends_to_each_user_in_turn_and_reads_answers_that_come_in_pieces() -> None:
    server = Server(said(), piece=7)
    outcome = await sent(server, path="/tokens/{}", most=7, first=3, users=5, seconds=30)
    assert server.asked == [f"GET /tokens/{number} HTTP/1.1" for number in (3, 4, 0, 1, 2, 3, 4)]
    assert (outcome.offered, outcome.good, outcome.statuses) == (7, 7, {200: 7})
    assert 0 < outcome.p50 <= outcome.p99 <= outcome.most <= 1000 * outcome.seconds


async def test_an_open_loop_sends_as_many_as_were_asked_for() -> None:
    server = Server(said())
    outcome = await sent(server, rate=200, seconds=0.5)
    assert outcome.offered == outcome.answered + outcome.given_up == 100


async def test_an_open_loop_counts_from_when_a_request_had_its_time_and_gives_up_what_finds_no_connection() -> (
    None
):
    server = Server(said(), held_seconds=0.4)
    outcome = await sent(
        server, rate=100, seconds=0.3, connections=1, patience=0.1, in_time=0.01, may_lose=True
    )
    assert (outcome.offered, outcome.answered, outcome.left) == (30, 0, 1)
    assert outcome.given_up == 29
    patient = await sent(Server(said(), held_seconds=0.1), rate=20, seconds=0.5, connections=1, patience=5.0)
    assert (patient.offered, patient.good) == (10, 6) or patient.given_up > 0
    assert patient.most >= 300


@pytest.mark.parametrize("status", [401, 404, 500, 503])
async def test_an_answer_that_is_not_as_it_should_be_fails_the_load(status: int) -> None:
    with pytest.raises(RuntimeError, match=f"answered {status}"):
        await sent(Server(said(), said(status)), seconds=30)


async def test_a_connection_that_ends_before_its_answer_fails_the_load() -> None:
    with pytest.raises(RuntimeError, match="ended before its answer"):
        await sent(
            Server(b"HTTP/1.1 200 Said\r\nconnection: close\r\ncontent-length: 9\r\n\r\nhalf"), seconds=30
        )


async def test_what_was_shed_without_a_time_to_come_back_is_counted() -> None:
    told = said(503, "retry-after: 1", "connection: close")
    answers = (said(), told, told, said(429))
    outcome = await sent(
        Server(*answers), rate=300, seconds=0.3, connects_first=0, accepts=(200, 429, 503), may_lose=True
    )
    assert outcome.good + outcome.statuses[503] + outcome.statuses[429] == outcome.answered
    assert outcome.unsaid == outcome.statuses[429] > 0


async def test_connections_that_the_server_closes_are_made_anew_in_an_open_loop() -> None:
    server = Server(said(200, "connection: close"))
    outcome = await sent(server, rate=100, seconds=0.3, connects_first=0, may_lose=True)
    assert 2 < outcome.good <= server.connections
