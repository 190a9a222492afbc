"""Identical GETs in flight: one call for all who wait, each for as long as he likes, and no answer that is older than the
question."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.errors import ProviderUnavailable
from app.gateway.counts import Outcome
from app.gateway.meant import Meant
from app.grants.grant import GrantKey
from tests.broker import Broker, heard
from tests.gateway.answering import Answering
from tests.gateway.calling import PROVIDER, Got, call, connect
from tests.gateway.keeping import api, broker, settings

__all__ = ["api", "broker", "settings"]
HIT, MISS, COALESCED, BYPASS = Outcome.HIT, Outcome.MISS, Outcome.COALESCED, Outcome.BYPASS


def begun(*calls: Any) -> list[asyncio.Task[Got]]:
    return [asyncio.create_task(each) for each in calls]


async def waiting(broker: Broker, number: int) -> None:
    """Until so many wait for the one flight there is."""
    async with asyncio.timeout(10):
        while [each._waiting for each in broker.services.gateway._flights._under_way.values()] != [number]:
            await asyncio.sleep(0.002)


@pytest.mark.parametrize("target", ["portfolio", "contacts"])
async def test_five_hundred_at_once_are_one_call(broker: Broker, api: Answering, target: str) -> None:
    await call(broker, "ada", "orders")
    api.asked.clear()
    api.shut()
    tasks = begun(*(call(broker, "ada", target) for _ in range(500)))
    await waiting(broker, 500)
    api.open()
    got = await asyncio.gather(*tasks)
    assert api.asked == {f"GET ada /{target}": 1}
    assert sorted(each.outcome for each in got) == [COALESCED] * 499 + [MISS]
    assert {each.told["user"] for each in got} == {"ada"}


async def test_two_users_never_share_a_call(broker: Broker, api: Answering) -> None:
    api.shut()
    tasks = begun(*(call(broker, user) for user in ("ada", "bob") * 5))
    await api.arrived(2)
    api.open()
    assert [each.told["user"] for each in await asyncio.gather(*tasks)] == ["ada", "bob"] * 5
    assert api.asked.total() == 2


@pytest.mark.parametrize(
    "headers",
    [
        {"range": "bytes=0-1"},
        {"cache-control": "no-cache"},
        {"cache-control": "no-store"},
        {"accept": "text/csv"},
    ],
)
async def test_whoever_wants_something_else_asks_for_himself(
    broker: Broker, api: Answering, headers: dict[str, str]
) -> None:
    api.shut()
    tasks = begun(call(broker, "ada"), call(broker, "ada", headers=headers))
    await api.arrived(2)
    api.open()
    assert COALESCED not in {each.outcome for each in await asyncio.gather(*tasks)}


async def test_the_call_goes_on_when_who_began_it_hangs_up(broker: Broker, api: Answering) -> None:
    api.shut()
    first, second = begun(call(broker, "ada"), call(broker, "ada"))
    await waiting(broker, 2)
    first.cancel()
    await asyncio.wait({first})
    api.open()
    assert (await second).told["user"] == "ada"
    assert (api.asked.total(), api.ended) == (1, 0)


async def test_the_call_ends_when_nobody_waits(broker: Broker, api: Answering) -> None:
    api.shut()
    tasks = begun(call(broker, "ada"), call(broker, "ada"))
    await waiting(broker, 2)
    await api.arrived(1)
    for each in tasks:
        each.cancel()
    async with asyncio.timeout(5):
        while not api.ended:
            await asyncio.sleep(0.005)
    api.open()
    assert (await call(broker, "ada")).outcome is MISS


async def test_each_waits_for_as_long_as_he_likes(broker: Broker, api: Answering) -> None:
    api.shut()
    hasty, patient = begun(call(broker, "ada", within=0.2), call(broker, "ada"))
    with pytest.raises(ProviderUnavailable):
        await hasty
    api.open()
    assert (await patient).told["user"] == "ada"


async def test_who_comes_later_is_not_out_of_time_with_who_began(broker: Broker, api: Answering) -> None:
    api.shut()
    (first,) = begun(call(broker, "ada", within=2))
    await api.arrived(1)
    await asyncio.sleep(1.2)
    later = begun(*(call(broker, "ada", within=2) for _ in range(5)))
    with pytest.raises(ProviderUnavailable):
        await first
    await api.arrived(2)
    api.open()
    assert [(await each).told["user"] for each in later] == ["ada"] * 5
    assert api.asked.total() == 2


async def test_an_error_is_everybodys(broker: Broker, api: Answering) -> None:
    api.shut()
    tasks = begun(*(call(broker, "ada") for _ in range(5)))
    await waiting(broker, 5)
    api.status = 404
    api.open()
    assert [each.status for each in await asyncio.gather(*tasks)] == [404] * 5
    assert api.asked.total() == 1


@pytest.mark.parametrize(
    ("kind", "size"),
    [("text/event-stream", 10), ("application/x-ndjson; charset=utf-8", 10), ("text/plain", 3 << 20)],
)
async def test_an_answer_that_is_large_or_streams_is_one_callers_alone(
    broker: Broker, api: Answering, kind: str, size: int
) -> None:
    api.kind, api.body = kind, b"x" * size
    api.shut()
    tasks = begun(*(call(broker, "ada") for _ in range(3)))
    await waiting(broker, 3)
    api.open()
    got = await asyncio.gather(*tasks)
    assert [len(each.body) for each in got] == [size] * 3
    assert api.asked.total() == 3
    assert len(broker.services.answers) == 0


async def test_a_write_parts_those_before_it_from_those_after(broker: Broker, api: Answering) -> None:
    await heard(broker)
    api.shut()
    (before,) = begun(call(broker, "ada"))
    await api.arrived(1)
    writing = asyncio.create_task(call(broker, "ada", method="POST"))
    await api.arrived(2)
    api.open()
    await writing
    api.shut()
    (after,) = begun(call(broker, "ada"))
    await asyncio.sleep(0.05)
    api.open()
    assert (await before).told["version"] == 0
    assert (await after).told["version"] == 1
    assert (await call(broker, "ada")).told["version"] == 1


async def test_what_was_under_way_before_a_write_is_neither_joined_nor_kept(
    broker: Broker, api: Answering
) -> None:
    await heard(broker)
    grant = (await broker.services.known.get(GrantKey(PROVIDER, "ada"))).value
    api.shut()
    (before,) = begun(call(broker, "ada"))
    await api.arrived(1)
    await broker.services.answers.forget(Meant("/portfolio", grant_id=str(grant.id)))
    (after,) = begun(call(broker, "ada"))
    await api.arrived(2)
    before.cancel()
    api.open()
    assert (await after).outcome is MISS
    assert (await call(broker, "ada")).outcome is HIT


async def test_the_answer_to_a_question_before_a_write_is_not_kept(broker: Broker, api: Answering) -> None:
    await heard(broker)
    grant = (await broker.services.known.get(GrantKey(PROVIDER, "ada"))).value
    api.shut()
    (before,) = begun(call(broker, "ada"))
    await api.arrived(1)
    await broker.services.answers.forget(Meant("/portfolio", grant_id=str(grant.id)))
    api.open()
    await before
    assert (await call(broker, "ada")).outcome is MISS


async def test_an_answer_of_another_account_is_not_kept_as_this_ones(broker: Broker, api: Answering) -> None:
    await call(broker, "ada", "orders")
    api.asked.clear()
    api.shut()
    (before,) = begun(call(broker, "ada"))
    await api.arrived(1)
    await connect(broker, "ada", token="eve")
    (after,) = begun(call(broker, "ada"))
    await api.arrived(2)
    api.open()
    assert [(await each).told["user"] for each in (before, after)] == ["ada", "eve"]
    assert (await call(broker, "ada")).told["user"] == "eve"
