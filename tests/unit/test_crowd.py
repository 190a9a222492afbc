"""Neither a grant nor an API takes all connections, and a place that is given back is the next one's."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from app.apis.crowd import OF_GRANT, OF_HOST, Crowd
from app.errors import Overloaded
from app.outbound import http


def test_all_places_at_a_host_are_fewer_than_its_connections() -> None:
    assert OF_GRANT < OF_HOST < http._PER_HOST


async def test_a_grant_has_so_many_places_and_others_have_theirs() -> None:
    crowd = Crowd(of_grant=2, of_host=3)
    async with AsyncExitStack() as under_way:
        for _ in range(2):
            await under_way.enter_async_context(crowd.place("ada", "api", within=5))
        with pytest.raises(Overloaded) as caught:
            async with crowd.place("ada", "api", within=0.01):
                pass
        assert caught.value.retry_after == 1
        async with crowd.place("bob", "api", within=5):
            with pytest.raises(Overloaded):
                async with crowd.place("eve", "api", within=0.01):
                    pass
            async with crowd.place("eve", "another", within=5):
                pass
    assert not crowd._rooms  # nothing is kept of who has gone, or went away waiting


async def test_who_waits_has_the_place_that_is_given_back() -> None:
    crowd, order = Crowd(of_grant=1), list[int]()

    async def one(number: int) -> None:
        async with crowd.place("ada", "api", within=5):
            order.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(one(number) for number in range(20)))
    assert order == list(range(20))
    assert not crowd._rooms


async def test_a_failure_of_the_call_passes_and_gives_its_place_back() -> None:
    crowd = Crowd(of_grant=1)
    with pytest.raises(TimeoutError):
        async with crowd.place("ada", "api", within=5):
            raise TimeoutError
    assert not crowd._rooms
