"""Refreshes in flight are bounded at each provider, and callers come before the timetable."""

from __future__ import annotations

import asyncio

from app.grants.slots import Slots
from app.oauth.client import OAuthClient
from tests.unit.registrations import acme

STRICT = acme(refresh_token={"rotation": "strict"})
KEEPS = acme(refresh_token={"rotation": "never"})


class Work:
    """Refreshes that run until they are told to end."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self.running = 0
        self.order: list[str] = []
        self.end = asyncio.Event()

    async def run(self, client: OAuthClient, name: str = "", *, urgent: bool = True) -> None:
        async with self._slots.of(client, urgent=urgent):
            self.running += 1
            self.order.append(name)
            try:
                await self.end.wait()
            finally:
                self.running -= 1


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_at_a_strict_provider_there_are_few_and_elsewhere_many() -> None:
    for client, most in ((STRICT, 3), (KEEPS, 7)):
        work = Work(Slots(at_strict=3, at_others=7))
        tasks = [asyncio.create_task(work.run(client)) for _ in range(20)]
        await settle()
        assert work.running == most
        work.end.set()
        await asyncio.gather(*tasks)
        assert (work.running, len(work.order)) == (0, 20)


async def test_one_provider_does_not_take_the_places_of_another() -> None:
    work = Work(Slots(at_strict=1))
    other = OAuthClient("other", STRICT.provider, "id", "secret")
    tasks = [asyncio.create_task(work.run(client)) for client in (STRICT, STRICT, other)]
    await settle()
    assert work.running == 2
    work.end.set()
    await asyncio.gather(*tasks)


async def test_callers_come_before_the_timetable_and_each_in_turn() -> None:
    work = Work(Slots(at_strict=1))
    work.end.set()
    async with work._slots.of(STRICT, urgent=True):
        tasks = [
            asyncio.create_task(work.run(STRICT, name, urgent=name.startswith("caller")))
            for name in ("job 1", "job 2", "caller 1", "caller 2")
        ]
        await settle()
    await asyncio.gather(*tasks)
    assert work.order == ["caller 1", "caller 2", "job 1", "job 2"]


async def test_who_gives_up_waiting_takes_no_place_with_it() -> None:
    work = Work(Slots(at_strict=1))
    first = asyncio.create_task(work.run(STRICT, "first"))
    waiting = [asyncio.create_task(work.run(STRICT, name)) for name in ("gone", "stays")]
    await settle()
    waiting[0].cancel()
    work.end.set()
    await asyncio.gather(first, *waiting, return_exceptions=True)
    assert work.order == ["first", "stays"]
    async with asyncio.timeout(1), work._slots.of(STRICT, urgent=False):
        pass


async def test_a_place_that_is_given_to_who_is_cancelled_in_that_moment_goes_on() -> None:
    slots = Slots(at_strict=1)
    holder = slots.of(STRICT, urgent=True)
    await holder.__aenter__()
    work = Work(slots)
    unlucky = asyncio.create_task(work.run(STRICT))
    await settle()
    await holder.__aexit__(None, None, None)
    unlucky.cancel()
    await asyncio.gather(unlucky, return_exceptions=True)
    async with asyncio.timeout(1), slots.of(STRICT, urgent=True):
        pass


async def test_who_only_asks_for_room_waits_behind_all_and_takes_nothing() -> None:
    slots = Slots(at_strict=2)
    assert (slots.size(STRICT), await slots.room(STRICT)) == (2, 2)
    work = Work(slots)
    tasks = [asyncio.create_task(work.run(STRICT, f"{number}")) for number in range(3)]
    await settle()
    looking = asyncio.create_task(slots.room(STRICT))
    await settle()
    assert not looking.done()
    work.end.set()
    assert await looking >= 1
    await asyncio.gather(*tasks)
    assert (len(work.order), await slots.room(STRICT)) == (3, 2)
