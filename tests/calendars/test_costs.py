"""What a sync with nothing new asks: of the provider, and of PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from typing import Any

import pytest
from sqlalchemy import update

from app.calendars.event_store import put
from app.calendars.google import event_of
from app.sandbox.server import Sandbox
from app.tables import calendar_events as events
from app.tables import calendar_sync_states as states
from tests.broker import Broker
from tests.calendars.conftest import connect
from tests.calendars.google import GoogleCalendars
from tests.calendars.mirrored import Mirrored
from tests.calendars.server import CalendarServer
from tests.plans import statements

ROWS_OF_A_SYNC = re.compile(r"calendar_accounts|calendar_sync_states|calendar_events|sync_runs|FROM grants")
OTHER_JOBS = re.compile(r"push_channels|next_refresh_at <=")


@pytest.fixture
def google(upstreams: CalendarServer) -> GoogleCalendars:
    return upstreams.google


async def _synced(broker: Broker, sandbox: Sandbox, google: GoogleCalendars, *, calendars: int) -> None:
    """Ada's calendars, each with events, synced for the first time; now only what is new is asked for."""
    for number in range(calendars):
        name = google.add_calendar(f"ada-{number}@example.com")
        for _ in range(3):
            google.add(name)
    await connect(broker, sandbox)
    await _sync(broker)
    google.requests.clear()


async def _sync(broker: Broker) -> None:
    answer = await broker.http.post("/calendar/sync", json={"user_id": "ada"})
    assert answer.json()["status"] == "success", answer.text
    assert answer.json()["calendars"] != []


async def _sync_by_the_clock(broker: Broker) -> None:
    await broker.run("sync_calendars")


async def _make_due(broker: Broker) -> None:
    async with broker.services.db.begin() as tx:
        await tx.execute(update(states).values(scheduled=True, next_attempt_at=states.c.last_ok_at))


async def _asked(work: Awaitable[None]) -> list[str]:
    """The statements of syncs meanwhile, not those of other jobs that come to their turn."""
    with statements() as asked:
        await work
    return [text for text, _ in asked if ROWS_OF_A_SYNC.search(text) and not OTHER_JOBS.search(text)]


@pytest.mark.parametrize(("calendars", "most"), [(1, 5), (3, 7)])
async def test_a_sync_with_nothing_new_is_a_request_for_each_calendar_and_few_statements(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars, calendars: int, most: int
) -> None:
    """The grant, the account, the claim of all calendars, the end of each, the run."""
    await _synced(broker, sandbox, google, calendars=calendars)
    asked = await _asked(_sync(broker))
    assert google.requests == {"list incremental": calendars}
    assert 3 < len(asked) <= most, "\n".join(asked)


@pytest.mark.parametrize(("calendars", "most"), [(1, 3), (3, 5)])
async def test_by_the_clock_it_is_less(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars, calendars: int, most: int
) -> None:
    """The claim, the end of each, and a look whether more is due."""
    await _synced(broker, sandbox, google, calendars=calendars)
    await _make_due(broker)
    asked = await _asked(_sync_by_the_clock(broker))
    assert google.requests == {"list incremental": calendars}
    assert 2 < len(asked) <= most, "\n".join(asked)


async def test_an_event_is_kept_however_deeply_it_is_nested(broker: Broker) -> None:
    fake = GoogleCalendars()
    fake.add_calendar("ada@example.com")
    mirrored = await Mirrored.make(broker, fake, page_size=10)
    nested: dict[str, Any] = {}
    for _ in range(400):
        nested = {"in": nested}
    boundary = {"dateTime": "2026-11-01T09:00:00Z"}
    item = {
        "id": "deep", "start": boundary, "end": boundary, "extendedProperties": nested,
        "recurrence": ["RRULE:FREQ=DAILY;COUNT=2"], "updated": "2026-10-01T00:00:00.123Z",
    }  # fmt: skip
    async with broker.services.db.begin() as tx:
        await put(tx, mirrored.calendar_id, [event_of(item, "UTC")], generation=1)
        stored = (await tx.execute(events.select())).one()
    event = event_of(item, "UTC")
    assert event.start is not None
    assert (stored.raw, stored.recurrence) == (item, list(event.recurrence))
    assert (stored.start_at, stored.provider_updated_at) == (event.start.at, event.updated_at)
