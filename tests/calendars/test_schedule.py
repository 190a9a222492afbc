"""Calendars are kept current by the clock, once somebody has asked for that, each by one replica at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from app.sandbox.server import Sandbox
from app.settings import Settings
from app.tables import calendar_accounts as accounts
from app.tables import calendar_events as events
from app.tables import calendar_sync_states as states
from app.tables import calendars, sync_runs
from tests.broker import Broker
from tests.calendars.conftest import connect
from tests.calendars.google import GoogleCalendars
from tests.calendars.google_errors import GoogleFault
from tests.calendars.server import CalendarServer
from tests.calendars.test_sync import auto, rows, sync

PRIMARY = "ada@example.com"


@pytest.fixture
def google(upstreams: CalendarServer) -> GoogleCalendars:
    upstreams.google.add_calendar(PRIMARY)
    return upstreams.google


@pytest.fixture
async def twin(broker: Broker, settings: Settings) -> AsyncIterator[Broker]:
    """Another replica on the database of `broker`."""
    async with Broker.running(settings) as running:
        yield running


async def make_due(broker: Broker) -> None:
    """It is time for every calendar, and for every list of them."""
    past = func.clock_timestamp() - timedelta(seconds=1)
    async with broker.services.db.begin() as tx:
        await tx.execute(update(states).values(next_attempt_at=past))
        await tx.execute(update(accounts).values(next_list_at=past))


async def column(broker: Broker, of: Any) -> list[Any]:
    async with broker.services.db.begin() as tx:
        return list(await tx.scalars(select(of)))


async def test_a_page_that_was_opened_once_keeps_the_calendar_current(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars
) -> None:
    await connect(broker, sandbox)
    assert (await auto(broker))["status"] == "success"
    google.add(PRIMARY)
    await broker.run("sync_calendars")
    assert await rows(broker) != google.rows()  # it is not time yet
    await make_due(broker)
    await broker.run("sync_calendars")
    assert await rows(broker) == google.rows()
    assert sorted(await column(broker, sync_runs.c.trigger)) == ["auto", "scheduler"]


async def test_nothing_is_scheduled_for_who_only_asked_for_a_sync(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars
) -> None:
    await connect(broker, sandbox)
    await sync(broker)
    google.add(PRIMARY)
    await make_due(broker)
    await broker.run("sync_calendars")
    await broker.run("list_calendars")
    assert await rows(broker) != google.rows()


async def test_a_page_that_is_opened_again_soon_is_told_what_the_last_sync_came_to(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars
) -> None:
    await connect(broker, sandbox)
    first = await auto(broker)
    asked = sum(google.requests.values())
    again = await auto(broker)
    assert (again["run_id"], again["status"], again["calendars"]) == (
        first["run_id"], "success", first["calendars"],
    )  # fmt: skip
    assert again["next"] is not None
    assert sum(google.requests.values()) == asked
    await auto(broker, min_interval=0)
    assert sum(google.requests.values()) == asked + 1


async def test_replicas_that_tick_at_once_sync_each_calendar_once(
    broker: Broker, twin: Broker, sandbox: Sandbox, google: GoogleCalendars
) -> None:
    for number in range(12):
        google.add_calendar(f"calendar-{number}")
    await connect(broker, sandbox)
    await auto(broker)
    await make_due(broker)
    before = google.requests["list incremental"]
    await asyncio.gather(*(each.run("sync_calendars") for each in (broker, twin) * 3))
    assert google.requests["list incremental"] - before == 13


async def test_two_services_that_ask_at_once_get_one_sync(
    broker: Broker, twin: Broker, sandbox: Sandbox, google: GoogleCalendars
) -> None:
    await connect(broker, sandbox)
    await sync(broker)
    for _ in range(1100):
        google.add(PRIMARY)
    answers = await asyncio.gather(*(sync(each) for each in (broker, broker, twin, twin)))
    assert {each["status"] for each in answers} == {"success"}
    assert sum(each["added"] for each in {a["run_id"]: a["calendars"][0] for a in answers}.values()) == 1100
    assert await rows(broker) == google.rows()


async def test_a_calendar_that_fails_is_tried_again_later_each_time(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars
) -> None:
    await connect(broker, sandbox)
    await auto(broker)
    pauses = []
    for _ in range(3):
        google.fail_next(1, GoogleFault.NOT_JSON)
        await make_due(broker)
        await broker.run("sync_calendars")
        (next_at,) = await column(broker, states.c.next_attempt_at)
        pauses.append((next_at - broker.services.clock.now()).total_seconds())
    assert [round(pause / 60) for pause in pauses] == [1, 2, 4]
    await make_due(broker)
    await broker.run("sync_calendars")
    assert await column(broker, states.c.failures) == [0]


async def test_calendars_that_come_and_go_are_followed(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars
) -> None:
    await connect(broker, sandbox)
    google.add(google.add_calendar("going"))
    await auto(broker)
    assert len(await column(broker, events.c.external_id)) == 1
    google.remove_calendar("going")
    google.add(google.add_calendar("coming"))
    await make_due(broker)
    await broker.run("list_calendars")
    await broker.run("sync_calendars")
    assert await rows(broker) == google.rows()
    google.add_calendar("going")  # it comes back, and begins anew
    await make_due(broker)
    await broker.run("list_calendars")
    await broker.run("sync_calendars")
    assert await rows(broker) == google.rows()


async def test_what_was_synced_by_a_grant_goes_with_it(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars
) -> None:
    await connect(broker, sandbox)
    google.add(PRIMARY)
    await auto(broker)
    await broker.http.delete("/grants/google/ada")
    await broker.run("sweep_calendars")
    for table in (accounts, calendars, states, events, sync_runs):
        assert await column(broker, func.count(next(iter(table.c)))) == [0]


async def test_a_dead_grant_is_left_alone_by_the_clock(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars
) -> None:
    await connect(broker, sandbox)
    await auto(broker)
    sandbox.revoke("ada")
    await make_due(broker)
    await broker.run("sync_calendars")
    asked = sum(google.requests.values())
    await make_due(broker)
    await broker.run("sync_calendars")
    await broker.run("list_calendars")
    assert sum(google.requests.values()) == asked
