"""Whose turn it is to be read, where more has arrived than one turn of the event loop takes on."""

from __future__ import annotations

import asyncio

import pytest

from app import unread
from app.unread import Unread


async def arrive(waiting: Unread, names: str) -> list[str]:
    """All of them in one turn; the list of those that were read, in order, which grows."""
    read: list[str] = []
    for name in names:
        if waiting.may_be_read(lambda name=name: read.append(name)):  # type: ignore[misc]
            read.append(name)
    return read


async def test_a_turn_reads_so_many_and_the_newest_of_the_others_come_next() -> None:
    read = await arrive(Unread(at_once=2), "abcdefg")
    seen = ["".join(read)]
    while len(read) < 7:
        await asyncio.sleep(0)
        seen.append("".join(read))
    assert seen == ["ab", "abgf", "abgfed", "abgfedc"]


async def test_who_has_waited_for_long_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unread, "_PATIENCE_SECONDS", 0.0)
    read = await arrive(Unread(at_once=2), "abcdefg")
    while len(read) < 7:
        await asyncio.sleep(0)
    assert "".join(read) == "abcdefg"


async def test_nobody_is_overtaken_for_ever() -> None:
    """Though in each turn more arrive than are read."""
    waiting, read = Unread(at_once=2), asyncio.Event()
    for first in (lambda: None, lambda: None, read.set, *[lambda: None] * 10):
        waiting.may_be_read(first)

    async def flood() -> None:
        while True:
            for _ in range(3):
                waiting.may_be_read(lambda: None)
            await asyncio.sleep(0)

    flooding = asyncio.create_task(flood())
    await asyncio.sleep(0.1)
    assert not read.is_set()
    assert 0.05 < waiting.waited_seconds < 0.5
    await asyncio.wait_for(read.wait(), 10)
    flooding.cancel()


async def test_each_turn_has_room_again() -> None:
    waiting = Unread(at_once=2)
    for _ in range(3):
        assert [waiting.may_be_read(lambda: None) for _ in range(2)] == [True, True]
        await asyncio.sleep(0)
    assert waiting.waited_seconds == 0
