"""What is seen of calendars between two times, of the rows that syncs have stored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert

from app.calendars import event_store, reading, reading_store
from app.calendars.event import Event
from app.calendars.google import event_of
from app.calendars.graph_event import read_event
from app.calendars.occurrence import Occurrence
from app.calendars.reading import CalendarReader
from app.db import Database
from app.errors import ValidationFailed
from app.ids import uuid7
from app.tables import calendar_accounts, calendar_sync_states, calendars, grants, sync_runs
from tests.plans import explained, statements

LOS_ANGELES = "America/Los_Angeles"


class Rows:
    """A database with a grant and calendars."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.reader = CalendarReader(db)
        self.grant = uuid4()

    async def add_grant(self) -> UUID:
        grant = uuid4()
        async with self.db.begin() as tx:
            await tx.execute(
                insert(grants).values(id=grant, provider="google", user_id=str(grant), lineage_id=uuid4())
            )
            await tx.execute(insert(calendar_accounts).values(grant_id=grant))
        return grant

    async def add_calendar(self, zone: str | None = LOS_ANGELES, **values: Any) -> UUID:
        calendar = uuid7(datetime.now(UTC))
        state = {
            name: values.pop(name) for name in ("last_error", "last_ok_at", "failures") if name in values
        }
        row = {"grant_id": self.grant, "name": "Mine", "access_role": "owner", "is_primary": False, **values}
        async with self.db.begin() as tx:
            await tx.execute(
                insert(calendars).values(id=calendar, external_id=str(calendar), zone=zone, **row)
            )
            await tx.execute(
                insert(calendar_sync_states).values(
                    id=calendar, grant_id=row["grant_id"], scheduled=False, **state
                )
            )
        return calendar

    async def put(self, calendar: UUID, *events: Event) -> None:
        async with self.db.begin() as tx:
            await event_store.put(tx, calendar, events, generation=1)

    async def seen(self, calendar: UUID | Sequence[UUID], since: str, until: str) -> list[Occurrence]:
        ids = [calendar] if isinstance(calendar, UUID) else calendar
        return await self.reader.events(ids, _instant(since), _instant(until))


@pytest.fixture
async def rows(database_url: str) -> AsyncIterator[Rows]:
    db = Database(database_url, pool_size=2)
    rows = Rows(db)
    rows.grant = await rows.add_grant()
    yield rows
    await db.close()


def _instant(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _boundary(text: str) -> dict[str, str]:
    return {"date": text} if len(text) == 10 else {"dateTime": text, "timeZone": LOS_ANGELES}


def google(id: str, start: str, end: str, *recurrence: str, **more: Any) -> Event:
    """As the API has it; a time without an offset is in UTC."""
    item = {"id": id, "start": _boundary(start), "end": _boundary(end), "summary": id, **more}
    if recurrence:
        item["recurrence"] = list(recurrence)
    return event_of(item, LOS_ANGELES)


def outlook(id: str, kind: str, start: str | None = None, end: str | None = None, **more: Any) -> Event:
    times = {"start": start, "end": end}
    given = {name: {"dateTime": text, "timeZone": "UTC"} for name, text in times.items() if text}
    return read_event({"id": id, "type": kind, **given, **more})


def told(found: Sequence[Occurrence]) -> list[tuple[str, str]]:
    return [(each.instance.id, each.begins_at.strftime("%m-%dT%H:%M")) for each in found]


async def test_events_of_several_calendars_come_by_start_and_id(rows: Rows) -> None:
    mine, yours, other = [await rows.add_calendar() for _ in range(3)]
    single = "2026-11-10T10:00:00", "2026-11-10T11:00:00"
    await rows.put(mine, google("b", *single), google("late", "2026-11-10T20:00:00", "2026-11-10T21:00:00"))
    await rows.put(
        yours,
        google("a", *single),
        google("day", "2026-11-10", "2026-11-11"),
        google("weekly", "2026-10-06T15:00:00", "2026-10-06T16:00:00", "RRULE:FREQ=WEEKLY"),
    )
    await rows.put(other, google("not asked for", *single))
    found = await rows.seen([mine, yours], "2026-11-10", "2026-11-11")
    assert told(found) == [
        ("day", "11-10T08:00"),  # where the date begins in the calendar's zone
        ("a", "11-10T10:00"),
        ("b", "11-10T10:00"),
        ("weekly_20261110T160000Z", "11-10T16:00"),  # an hour later by UTC: the clocks went back
        ("late", "11-10T20:00"),
    ]
    assert [each.calendar_id for each in found] == [yours, yours, mine, yours, mine]
    assert {each.raw["summary"] for each in found} == {"day", "a", "b", "weekly", "late"}


@pytest.mark.parametrize(
    ("start", "end", "is_seen"),
    [
        ("2026-11-10T09:00:00", "2026-11-10T10:00:00", False),  # ends as the interval begins
        ("2026-11-10T09:00:00", "2026-11-10T10:00:01", True),
        ("2026-11-10T10:00:00", "2026-11-10T10:00:00", True),  # without length
        ("2026-11-10T11:59:59", "2026-11-10T13:00:00", True),
        ("2026-11-10T12:00:00", "2026-11-10T13:00:00", False),  # begins as it ends
        ("2026-01-01T00:00:00", "2027-01-01T00:00:00", True),
    ],
)
async def test_an_interval_has_what_lies_in_it_to_the_second(
    rows: Rows, start: str, end: str, is_seen: bool
) -> None:
    calendar = await rows.add_calendar()
    await rows.put(calendar, google("one", start, end))
    assert bool(await rows.seen(calendar, "2026-11-10T10:00", "2026-11-10T12:00")) is is_seen


@pytest.mark.parametrize(
    ("zone", "since", "until"),
    [
        (LOS_ANGELES, "2026-11-10T08:00", "2026-11-11T08:00"),
        ("Pacific/Kiritimati", "2026-11-09T10:00", "2026-11-10T10:00"),
        ("Pacific/Pago_Pago", "2026-11-10T11:00", "2026-11-11T11:00"),
        (None, "2026-11-10T00:00", "2026-11-11T00:00"),
        ("Not/A_Zone", "2026-11-10T00:00", "2026-11-11T00:00"),
    ],
)
async def test_an_all_day_event_takes_the_day_of_its_calendars_zone(
    rows: Rows, zone: str | None, since: str, until: str
) -> None:
    calendar = await rows.add_calendar(zone)
    await rows.put(
        calendar,
        google("day", "2026-11-10", "2026-11-11"),
        google("each", "2026-11-10", "2026-11-11", "RRULE:FREQ=DAILY;COUNT=1"),
    )
    second = timedelta(seconds=1)
    begins, ends = _instant(since), _instant(until)
    for asked, number in (
        ((begins, ends), 2),
        ((begins - second, begins), 0),
        ((begins - second, begins + second), 2),
        ((ends - second, ends), 2),
        ((ends, ends + second), 0),
    ):
        assert len(await rows.reader.events([calendar], *asked)) == number


async def test_moved_changed_and_cancelled_instances_take_their_places(rows: Rows) -> None:
    calendar = await rows.add_calendar()

    def changed(original: str, start: str | None, **more: Any) -> Event:
        item = {
            "id": f"s_{original}",
            "recurringEventId": "s",
            "originalStartTime": {"dateTime": original},
            "summary": "changed",
            **more,
        }
        if start is not None:
            end = (_instant(start) + timedelta(hours=1)).isoformat()
            item |= {"start": {"dateTime": start}, "end": {"dateTime": end}}
        return event_of(item, LOS_ANGELES)

    await rows.put(
        calendar,
        google("s", "2026-11-02T17:00:00", "2026-11-02T18:00:00", "RRULE:FREQ=DAILY"),
        changed("2026-11-10T17:00:00Z", "2026-12-24T10:00:00+00:00"),  # out of the interval
        changed("2026-11-20T17:00:00Z", "2026-11-11T10:00:00+00:00"),  # into it
        changed("2026-11-12T17:00:00Z", None, status="cancelled"),
        changed("2026-11-13T17:00:00Z", "2026-11-13T17:00:00+00:00"),
    )
    found = await rows.seen(calendar, "2026-11-10", "2026-11-14")
    assert told(found) == [
        ("s_2026-11-20T17:00:00Z", "11-11T10:00"),
        ("s_20261111T170000Z", "11-11T17:00"),
        ("s_2026-11-13T17:00:00Z", "11-13T17:00"),
    ]
    assert [each.raw["summary"] for each in found] == ["changed", "s", "changed"]
    assert told(await rows.seen(calendar, "2026-12-24", "2026-12-25"))[0][0] == "s_2026-11-10T17:00:00Z"


async def test_an_exception_is_seen_where_its_series_is_over_or_unknown(rows: Rows) -> None:
    calendar = await rows.add_calendar()
    await rows.put(
        calendar,
        google("over", "2026-01-02T17:00:00", "2026-01-02T18:00:00", "RRULE:FREQ=DAILY;COUNT=2"),
        *(
            google(
                f"{series}-moved",
                "2026-11-10T17:00:00",
                "2026-11-10T18:00:00",
                recurringEventId=series,
                originalStartTime={"dateTime": "2026-01-03T17:00:00Z"},
            )
            for series in ("over", "unknown")
        ),
    )
    found = await rows.seen(calendar, "2026-11-10", "2026-11-11")
    assert told(found) == [("over-moved", "11-10T17:00"), ("unknown-moved", "11-10T17:00")]


def cancelled_instance(series: str, original: datetime, **more: Any) -> Event:
    """Google tells no more of it, mostly."""
    item = {
        "id": f"{series}_{original:%Y%m%dT%H%M%SZ}",
        "status": "cancelled",
        "recurringEventId": series,
        "originalStartTime": {"dateTime": original.isoformat()},
    }
    return event_of({**item, **more}, LOS_ANGELES)


async def test_a_series_that_is_over_is_not_even_read(rows: Rows) -> None:
    calendar = await rows.add_calendar()
    times = "2026-01-02T17:00:00", "2026-01-02T18:00:00"
    for number, rule in enumerate(("COUNT=3", "UNTIL=20260104T170000Z", "UNTIL=20260104")):
        await rows.put(calendar, google(f"s{number}", *times, f"RRULE:FREQ=DAILY;{rule}"))
    assert len(await rows.seen(calendar, "2026-01-04", "2026-01-05")) == 3
    async with rows.db.begin() as tx:
        since, until = _instant("2026-01-06"), _instant("2026-02-01")
        assert await reading_store.events_between(tx, [calendar], since, until, limit=9) == {}


async def test_cancelled_events_are_not_seen(rows: Rows) -> None:
    calendar = await rows.add_calendar()
    times = "2026-11-10T10:00:00", "2026-11-10T11:00:00"
    start, end = (_boundary(each) for each in times)
    original = datetime(2026, 11, 10, 10, tzinfo=UTC)
    await rows.put(
        calendar,
        outlook("gone", "singleInstance", *times, isCancelled=True),
        google("weekly", *times, "RRULE:FREQ=WEEKLY"),
        cancelled_instance("weekly", original),
        cancelled_instance("unknown", original, start=start, end=end),
    )
    assert await rows.seen(calendar, "2026-11-10", "2026-11-11") == []
    assert len(await rows.seen(calendar, "2026-11-17", "2026-11-18")) == 1


async def test_a_series_with_more_exceptions_than_are_read_is_refused_rather_than_seen_wrong(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    calendar = await rows.add_calendar()
    monkeypatch.setattr(reading, "MOST_OCCURRENCES", 30)
    first = datetime(2026, 11, 10, 10, tzinfo=UTC)
    await rows.put(calendar, google("s", "2026-11-10T10:00:00", "2026-11-10T11:00:00", "RRULE:FREQ=DAILY"))
    cancelled = [cancelled_instance("s", first + timedelta(days=number)) for number in range(40)]
    await rows.put(calendar, *cancelled[:29])
    assert len(await rows.seen(calendar, "2026-12-08", "2026-12-10")) == 1
    await rows.put(calendar, *cancelled)
    with pytest.raises(ValidationFailed):
        await rows.seen(calendar, "2026-12-08", "2026-12-10")


async def test_instances_that_a_provider_lists_have_from_their_master_what_they_lack(rows: Rows) -> None:
    calendar = await rows.add_calendar()
    series = {"seriesMasterId": "M"}
    await rows.put(
        calendar,
        outlook("M", "seriesMaster", "2026-01-06T10:00", "2026-01-06T11:00", subject="Weekly",
                location={"displayName": "Room 1"}, recurrence={"pattern": {"type": "weekly"}}),
        outlook("i1", "occurrence", "2026-11-10T10:00", "2026-11-10T11:00", **series),
        outlook("x1", "exception", "2026-11-11T10:00", "2026-11-11T11:00", subject="Moved", **series),
        outlook("m", "seriesMaster", "2026-01-06T10:00", "2026-01-06T11:00", subject="case matters"),
    )  # fmt: skip
    found = await rows.seen(calendar, "2026-11-10", "2026-11-12")
    assert told(found) == [("i1", "11-10T10:00"), ("x1", "11-11T10:00")]
    instance, exception = (each.raw for each in found)
    assert (instance["subject"], instance["location"]["displayName"]) == ("Weekly", "Room 1")
    assert (instance["id"], instance["type"], instance["start"]["dateTime"]) == (
        "i1",
        "occurrence",
        "2026-11-10T10:00",
    )
    assert "recurrence" not in instance
    assert exception["subject"] == "Moved"
    # The master itself is no event, not even where it begins.
    assert await rows.seen(calendar, "2026-01-06", "2026-01-07") == []


async def test_a_series_whose_rule_cannot_be_read_is_seen_once_and_marked(rows: Rows) -> None:
    calendar = await rows.add_calendar()
    await rows.put(calendar, google("s", "2026-11-10T17:00:00", "2026-11-10T18:00:00", "RRULE:FREQ=SECONDLY"))
    [found] = await rows.seen(calendar, "2026-11-01", "2026-12-01")
    assert found.instance.unread == ("RRULE:FREQ=SECONDLY",)


async def test_as_much_is_listed_as_can_be_and_no_more(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    calendar, another = await rows.add_calendar(), await rows.add_calendar()
    monkeypatch.setattr(reading, "MOST_OCCURRENCES", 30)
    daily = "2026-01-01T17:00:00", "2026-01-01T18:00:00", "RRULE:FREQ=DAILY"
    await rows.put(calendar, google("daily", *daily))
    assert len(await rows.seen(calendar, "2026-11-01", "2026-12-01")) == 30
    with pytest.raises(ValidationFailed) as refused:
        await rows.seen(calendar, "2026-11-01", "2026-12-02")
    assert set(refused.value.fields) == {"query.to"}
    for number in range(31):
        hour = datetime(2026, 12, 5, tzinfo=UTC) + timedelta(hours=number)
        of = another if number % 2 else calendar
        await rows.put(of, google(f"e{number}", hour.isoformat(), (hour + timedelta(hours=1)).isoformat()))
    assert len(await rows.seen(calendar, "2026-12-05", "2026-12-07")) == 18
    with pytest.raises(ValidationFailed):
        await rows.seen([calendar, another], "2026-12-05", "2026-12-07")


async def test_rules_that_take_too_much_together_are_refused(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    calendar = await rows.add_calendar()
    monkeypatch.setattr(reading, "_MOST_WORK", 200_000)
    hostile = "RRULE:FREQ=DAILY;COUNT=999999999;BYMONTH=2;BYMONTHDAY=30"
    start = "1800-01-01T17:00:00", "1800-01-01T18:00:00"
    for number in range(1, 6):
        await rows.put(calendar, google(f"h{number}", *start, hostile))
        if number < 4:
            assert await rows.seen(calendar, "2026-11-01", "2026-12-01") == []
    with pytest.raises(ValidationFailed):
        await rows.seen(calendar, "2026-11-01", "2026-12-01")


@pytest.mark.parametrize(
    ("since", "until"), [("2026-01-01", "2027-01-03"), ("2026-01-01", "2026-01-01"), ("2026-01-02", "2026-01-01")]
)  # fmt: skip
async def test_too_long_an_interval_or_none_is_refused(rows: Rows, since: str, until: str) -> None:
    with pytest.raises(ValidationFailed) as refused:
        await rows.seen(uuid4(), since, until)
    assert set(refused.value.fields) == {"query.to"}


async def test_a_year_can_be_asked_for_at_the_ends_of_all_time(rows: Rows) -> None:
    calendar = await rows.add_calendar()
    await rows.put(calendar, google("s", "2026-11-10T17:00:00", "2026-11-10T18:00:00", "RRULE:FREQ=DAILY"))
    assert await rows.seen(calendar, "0001-01-01", "0002-01-01") == []
    assert len(await rows.seen(calendar, "9999-01-01", "9999-12-31")) > 350  # none in the last days of all


async def test_calendars_are_listed_with_how_their_syncs_went(rows: Rows) -> None:
    now = datetime(2026, 11, 10, tzinfo=UTC)
    error = {"error_type": "rate_limited"}
    b = await rows.add_calendar(name="B", last_ok_at=now)
    a = await rows.add_calendar(name="A", last_error=error, failures=3)
    primary = await rows.add_calendar(name="Z", is_primary=True)
    await rows.add_calendar(name="gone", deleted_at=now)
    await rows.add_calendar(name="somebody's", grant_id=await rows.add_grant())
    found = await rows.reader.calendars([rows.grant])
    assert [each.id for each in found] == [primary, a, b]
    assert (found[1].last_error, found[1].failures, found[2].last_ok_at) == (error, 3, now)
    assert (found[0].zone, found[0].access_role, found[0].is_primary) == (LOS_ANGELES, "owner", True)
    assert await rows.reader.calendars([]) == []


async def test_runs_are_listed_from_the_latest_on(rows: Rows) -> None:
    other = await rows.add_grant()
    begins = datetime(2026, 11, 10, tzinfo=UTC)
    ids = [uuid7(begins + timedelta(minutes=minute)) for minute in range(5)]
    async with rows.db.begin() as tx:
        for number, id in enumerate(ids):
            await tx.execute(
                insert(sync_runs).values(
                    id=id,
                    grant_id=other if number == 1 else rows.grant,
                    trigger="request",
                    status="success",
                    message="Up to date.",
                    calendars=[{"id": "x"}],
                )
            )
    first = await rows.reader.runs([rows.grant], before=None, limit=2)
    assert [run.id for run in first] == [ids[4], ids[3]]
    assert (first[0].message, first[0].calendars) == ("Up to date.", [{"id": "x"}])
    rest = await rows.reader.runs([rows.grant], before=ids[3], limit=9)
    assert [run.id for run in rest] == [ids[2], ids[0]]
    both = await rows.reader.runs([rows.grant, other], before=None, limit=9)
    assert [run.id for run in both] == ids[::-1]


async def test_a_month_of_a_long_calendar_is_found_by_index(rows: Rows, database_url: str) -> None:
    calendar = await rows.add_calendar()
    begins = datetime(2010, 1, 1, tzinfo=UTC)
    many = []
    for number in range(6000):
        start = begins + timedelta(days=number)
        many.append(google(f"e{number:05}", start.isoformat(), (start + timedelta(hours=1)).isoformat()))
    await rows.put(calendar, *many)
    with statements() as asked:
        assert len(await rows.seen(calendar, "2026-05-01", "2026-06-01")) == 31
    [(statement, parameters)] = [each for each in asked if "near" in each[0]]
    plan = await explained(database_url, statement, parameters)
    assert "calendar_events_until_idx" in plan
    assert "Seq Scan on calendar_events" not in plan, plan
