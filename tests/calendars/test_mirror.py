"""Whatever happens between us and a calendar, in whatever order, a sync that ends well leaves our rows equal to the provider's."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.calendars.claimed import window_around
from tests.broker import Broker
from tests.calendars.google import GoogleCalendars
from tests.calendars.google_errors import GoogleFault
from tests.calendars.graph import GraphCalendars
from tests.calendars.graph_errors import GraphFault
from tests.calendars.mirrored import Crash, Mirrored, Rows

CALENDAR = "primary-calendar"
_START = datetime(2026, 12, 1, 9, tzinfo=UTC)
_KINDS = ("add", "change", "cancel", "series", "move", "cancel instance", "end series", "touch many")
# What somebody else does to the calendar: how, and to which of those that there are.
_CHANGE = st.tuples(st.sampled_from(_KINDS), st.integers(0, 30))
_CHANGES = st.lists(_CHANGE, max_size=6)
_INCIDENT = st.sampled_from(["crash", "gone", "fails", "overtaken", "changed", "expired"])
_INCIDENTS = st.dictionaries(st.integers(1, 6), st.tuples(_INCIDENT, _CHANGES), max_size=3)
# A sync, and what happens before the n-th of its requests is answered, and behind its answer.
_SYNC = st.tuples(st.booleans(), _INCIDENTS, _INCIDENTS)
_STORY = st.lists(st.tuples(_CHANGES, _SYNC), min_size=1, max_size=5)
_PROPERTY = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class GoogleWorld:
    """A Google calendar in other people's hands."""

    def __init__(self, seed: int) -> None:
        self.fake = GoogleCalendars(shuffled=random.Random(seed) if seed % 2 else None)
        self.fake.add_calendar(CALENDAR)

    def change(self, how: str, which: int) -> None:
        calendar = self.fake.calendars[CALENDAR]
        living = [name for name in calendar.events if calendar.is_living(name) and calendar.is_mirrored(name)]
        masters = [name for name in living if "recurrence" in calendar.events[name]]
        if how == "series":
            self.fake.add_series(CALENDAR, start=_START + timedelta(days=which))
        elif how in {"move", "cancel instance", "end series"} and masters:
            self._change_series(how, masters[which % len(masters)], which)
        elif how == "cancel" and living:
            self.fake.cancel(CALENDAR, living[which % len(living)])
        elif how == "change" and living:
            self.fake.change(CALENDAR, living[which % len(living)], summary=f"Changed {which}")
        elif how == "touch many":
            for name in living:
                self.fake.change(CALENDAR, name, description=str(which))
        else:
            self.fake.add(CALENDAR)

    def _change_series(self, how: str, master: str, which: int) -> None:
        start = datetime.fromisoformat(self.fake.calendars[CALENDAR].events[master]["start"]["dateTime"])
        original = start + timedelta(weeks=which % 6)
        if how == "move":
            self.fake.move_instance(CALENDAR, master, original, original + timedelta(hours=3))
        elif how == "cancel instance":
            self.fake.cancel_instance(CALENDAR, master, original)
        else:
            self.fake.delete_series(CALENDAR, master, tells_exceptions=which % 2 == 0)

    def fail(self, incident: str) -> None:
        if incident == "gone":
            self.fake.fail_next(1, GoogleFault.FULL_SYNC_REQUIRED)
        elif incident == "expired":
            self.fake.lists.expire()
        else:
            self.fake.fail_next(1, GoogleFault.TRUNCATED)

    def recover(self) -> None:
        self.fake.recover()

    def rows(self) -> Rows:
        return dict(self.fake.rows()[CALENDAR])


class GraphWorld:
    """An Outlook calendar in other people's hands, whose lists are no better than the documents promise."""

    def __init__(self, seed: int) -> None:
        self.fake = GraphCalendars()
        self.fake.add_calendar(CALENDAR)
        delta = self.fake.delta
        delta.shuffled = random.Random(seed) if seed % 2 else None
        delta.duplicates, delta.replays, delta.removed_with_type = seed % 3 == 0, seed % 4, seed % 5 == 0

    def change(self, how: str, which: int) -> None:
        events = {name: each for name, each in self.fake.events.items() if not each.is_deleted}
        masters = [
            name
            for name, each in events.items()
            if each.kind == "seriesMaster" and self.fake.occurrences(name)
        ]
        living = [name for name, each in events.items() if each.kind != "seriesMaster"]
        if how == "series":
            self.fake.add_series(CALENDAR, start=_START + timedelta(days=which))
        elif how in {"move", "cancel instance", "end series"} and masters:
            self._change_series(how, masters[which % len(masters)], which)
        elif how == "cancel" and living:
            self.fake.cancel(living[which % len(living)])
        elif how == "change" and living:
            self.fake.change(living[which % len(living)], subject=f"Changed {which}")
        elif how == "touch many":
            for name in living:
                self.fake.change(name, bodyPreview=str(which))
        else:
            # also outside of what is listed
            start = _START + timedelta(days=which * 40)
            self.fake.add(CALENDAR, start=start, end=start + timedelta(hours=1))

    def _change_series(self, how: str, master: str, which: int) -> None:
        number = which % len(self.fake.occurrences(master))
        if how == "move":
            self.fake.move_occurrence(master, number, _START + timedelta(days=which * 40))
        elif how == "cancel instance":
            self.fake.cancel_occurrence(master, number)
        else:
            self.fake.cancel(master, tells_occurrences=which % 2 == 0)

    def fail(self, incident: str) -> None:
        if incident == "gone":
            self.fake.fail_next(1, GraphFault.GONE)
        elif incident == "expired":
            self.fake.delta.expire()
        else:
            self.fake.fail_next(1, GraphFault.TRUNCATED)

    def recover(self) -> None:
        self.fake.recover()
        self.fake.delta.shuffled = None

    def rows(self) -> Rows:
        window = window_around(datetime.now(UTC))
        return dict(self.fake.rows(window.since, window.until)[CALENDAR])


World = GoogleWorld | GraphWorld


def _meanwhile(
    world: World, mirrored: Mirrored, incident: str, changes: list[tuple[str, int]]
) -> Callable[[], Awaitable[None]]:
    async def happens() -> None:
        for change in changes:
            world.change(*change)
        if incident == "crash":
            raise Crash
        if (
            incident == "overtaken"
        ):  # another replica has the lease by now, and is done before this one goes on
            await mirrored.sync()
        elif incident != "changed":
            world.fail(incident)

    return happens


async def _told(world: World, broker: Broker, story: list[Any], page_size: int) -> None:
    mirrored = await Mirrored.make(broker, world.fake, page_size=page_size)
    asked = mirrored.asked

    def all_of(incidents: dict[int, Any]) -> dict[int, Callable[[], Awaitable[None]]]:
        return {number: _meanwhile(world, mirrored, *each) for number, each in incidents.items()}

    for changes, (full, before, behind) in story:
        for change in changes:
            world.change(*change)
        asked.count, asked.before, asked.behind = 0, all_of(before), all_of(behind)
        await mirrored.sync(full=full)
    asked.before, asked.behind = {}, {}
    world.recover()
    outcome = await mirrored.sync()
    assert outcome is not None and outcome.trouble is None, outcome
    assert await mirrored.rows() == world.rows()


@_PROPERTY
@given(story=_STORY, page_size=st.integers(1, 7), seed=st.integers(0, 60))
async def test_a_google_calendar_is_mirrored(
    broker: Broker, story: list[Any], page_size: int, seed: int
) -> None:
    await _told(GoogleWorld(seed), broker, story, page_size)


@_PROPERTY
@given(story=_STORY, page_size=st.integers(1, 7), seed=st.integers(0, 60))
async def test_an_outlook_calendar_is_mirrored(
    broker: Broker, story: list[Any], page_size: int, seed: int
) -> None:
    await _told(GraphWorld(seed), broker, story, page_size)
