"""The places of a tick are shared out fairly, and none is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.grants.places import Places, shares


@pytest.mark.parametrize(
    ("wants", "total", "expected"),
    [
        ({"one": 64}, 64, {"one": 64}),
        ({"one": 64, "other": 64}, 64, {"one": 32, "other": 32}),
        ({"large": 64, "strict": 8}, 64, {"large": 56, "strict": 8}),
        ({"large": 64, "strict": 8}, 10, {"large": 5, "strict": 5}),
        ({"a": 64, "b": 64, "c": 2}, 9, {"a": 3, "b": 4, "c": 2}),
        ({"a": 8, "b": 8, "c": 8}, 2, {"a": 1, "b": 1, "c": 1}),  # they take turns
        ({}, 64, {}),
    ],
)
def test_each_has_what_it_wants_or_as_much_as_any_other(
    wants: Mapping[str, int], total: int, expected: Mapping[str, int]
) -> None:
    assert shares(wants, total) == expected


@given(st.dictionaries(st.text(), st.integers(1, 100), max_size=20), st.integers(1, 200))
def test_none_could_have_more_but_at_the_cost_of_one_with_less(wants: dict[str, int], total: int) -> None:
    given_ = shares(wants, total)
    assert given_.keys() == wants.keys()
    if len(wants) <= total:
        assert sum(given_.values()) == min(total, sum(wants.values()))
    most = max(given_.values(), default=0)
    for name, share in given_.items():
        assert share == wants[name] or share >= most - 1


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def take(places: Places, lane: str, count: int) -> None:
    for _ in range(count):
        await places.wait(lane)
        await places.take(lane)


async def test_a_lane_takes_no_more_than_its_share_until_the_others_are_closed() -> None:
    places = Places(8, {"one": 8, "other": 8})
    assert places.share("one") == 4
    await take(places, "one", 4)
    waiting = asyncio.create_task(places.wait("one"))
    await settle()
    assert not waiting.done()
    places.close("other")
    await waiting
    await take(places, "one", 4)
    assert places.share("one") == 8


async def test_a_place_that_is_given_back_can_be_taken_at_once() -> None:
    places = Places(8, {"one": 8})
    await take(places, "one", 8)
    waiting = asyncio.create_task(places.wait("one"))
    await settle()
    assert not waiting.done()
    places.give_back("one")
    await waiting


async def test_where_there_are_more_lanes_than_places_they_take_turns() -> None:
    places = Places(1, {"a": 8, "b": 8, "c": 8})
    turns: list[str] = []

    async def work(lane: str) -> None:
        for _ in range(3):
            await take(places, lane, 1)
            turns.append(lane)
            await asyncio.sleep(0)
            places.give_back(lane)

    async with asyncio.timeout(5):
        await asyncio.gather(*map(work, "abc"))
    assert turns == list("abc" * 3)


async def test_who_gives_up_waiting_takes_no_place_with_it() -> None:
    places = Places(1, {"a": 1, "b": 1})
    await take(places, "a", 1)
    waiting = asyncio.create_task(places.take("b"))
    await settle()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    places.give_back("a")
    async with asyncio.timeout(1):
        await take(places, "b", 1)
