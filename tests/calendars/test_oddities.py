"""What no document of a provider says, and comes all the same: no page fails for it, and nothing is lost by it."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from app.calendars import store, user
from app.calendars.upstream import RemoteCalendar
from app.ids import uuid7
from app.sandbox.server import Sandbox
from app.tables import calendar_accounts as accounts
from app.tables import calendar_events as events
from app.tables import calendar_sync_states as states
from app.tables import calendars
from tests.broker import Broker
from tests.calendars.answers import Answer
from tests.calendars.conftest import connect
from tests.calendars.google_errors import FULL_SYNC_REQUIRED, GoogleFault
from tests.calendars.graph_errors import FAULTY, GraphFault
from tests.calendars.server import CalendarServer
from tests.calendars.test_listing import listed
from tests.calendars.test_sync import auto, sync

PRIMARY = "ada@example.com"
_HOUR = {"start": {"dateTime": "2026-11-20T10:00:00Z"}, "end": {"dateTime": "2026-11-20T11:00:00Z"}}
_LONG = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=9000))
_NOVEMBER = {"from": "2026-11-01T00:00:00Z", "to": "2026-12-01T00:00:00Z"}


def as_json(body: object, status: int = 200) -> Answer:
    return (
        status,
        {"Content-Type": "application/json"},
        body if isinstance(body, bytes) else json.dumps(body).encode(),
    )


def answer_with(
    upstreams: CalendarServer,
    *,
    lists: Answer | None = None,
    events: Answer | Callable[[], Answer] | None = None,
    provider: str = "google",
) -> None:
    """From now on lists of calendars, or of events, are answered in this way."""
    fake: Any = upstreams.google if provider == "google" else upstreams.graph
    as_ever = fake.answer

    def answer(method: str, path: str, *rest: Any) -> Answer:
        of_events = method == "GET" and ("/events" in path or "delta" in path)
        if lists is not None and path.endswith(("/calendarList", "/me/calendars")):
            return lists
        if events is not None and of_events:
            return events() if callable(events) else events
        return as_ever(method, path, *rest)  # type: ignore[no-any-return]

    fake.answer = answer


def refused(reason: str) -> Answer:
    return as_json({"error": {"errors": [{"reason": reason}]}}, 403)


ODD_LISTS = {
    "a 410": FULL_SYNC_REQUIRED,
    "nothing": as_json({}),
    "no list": as_json({"items": "x"}),
    "a long id": as_json({"items": [{"id": _LONG}]}),
    "half a surrogate": as_json(b'{"items":[{"id":"a","summary":"x\xed\xa0\x80"}]}'),
    "nested": as_json(b'{"items":[{"id":"a","summary":"\\ud83d","z":' + b"[" * 900 + b"]" * 900 + b"}]}"),
    "a reason with NUL": refused("a\0b"),
    "a reason of a megabyte": refused("a" * 1_000_000),
    "a redirect": (302, {"Location": "https://elsewhere.example"}, b""),
}


HARMLESS = {"a long id", "half a surrogate"}  # of which something can be made, or that is left out


async def test_an_odd_list_of_calendars_fails_no_page_and_deletes_nothing(
    broker: Broker, sandbox: Sandbox, upstreams: CalendarServer
) -> None:
    upstreams.google.add(upstreams.google.add_calendar(PRIMARY))
    await connect(broker, sandbox)
    await sync(broker)
    for odd in sorted(ODD_LISTS, key=HARMLESS.__contains__):
        answer_with(upstreams, lists=ODD_LISTS[odd])
        async with broker.services.db.begin() as tx:
            await tx.execute(update(accounts).values(next_list_at=func.clock_timestamp()))
        answer = await auto(broker, min_interval=0)
        assert len(answer["message"]) < 200 and "a" * 100 not in json.dumps(answer), odd
        if odd not in HARMLESS:
            assert answer["error_type"] in {"provider_unavailable", "permission_missing"}, odd
            assert len(await listed(broker, "events", **_NOVEMBER)) == 1, odd


async def test_a_reset_in_place_of_outlooks_list_fails_no_page(
    broker: Broker, sandbox: Sandbox, upstreams: CalendarServer
) -> None:
    await connect(broker, sandbox, "microsoft/ada")
    answer_with(upstreams, lists=FAULTY[GraphFault.RESYNC_REQUIRED], provider="microsoft")
    assert (await auto(broker))["error_type"] == "provider_unavailable"


ODD_EVENTS: dict[str, dict[str, Any]] = {
    "status": {"status": 5},
    "zone": {"start": {"dateTime": "2026-11-20T10:00:00Z", "timeZone": 5}},
    "start": {"start": ["x"]},
    "recurrence": {"recurrence": [1]},
    "the first day": {"start": {"date": "0001-01-01"}, "end": {"date": "0001-01-02"}},
    "the last day": {"start": {"date": "9999-12-31"}, "end": {"date": "9999-12-31"}},
    "before all time": {"start": {"dateTime": "0001-01-01T00:00:00+14:00"}},
    "updated": {"updated": 5},
    "etag": {"etag": 5},
    "summary": {"summary": "a\0b\ud800c"},
    "id": {"id": _LONG},
    "a number that is none": {"sequence": float("inf")},
    "a zone that is a path": {"start": {"dateTime": "2026-11-20T10:00:00Z", "timeZone": "../../etc/passwd"}},
}


async def test_an_odd_event_keeps_no_other_from_being_stored(
    broker: Broker, sandbox: Sandbox, upstreams: CalendarServer
) -> None:
    upstreams.google.add_calendar(PRIMARY)
    good = {"id": "good", "status": "confirmed", **_HOUR}
    for number, odd in enumerate(ODD_EVENTS):
        await connect(broker, sandbox, f"google/user-{number}")
        items = [good, {"id": "odd", "status": "confirmed", **_HOUR, **ODD_EVENTS[odd]}]
        answer_with(upstreams, events=as_json({"items": items, "nextSyncToken": "t"}))
        assert (await auto(broker, f"user-{number}"))["status"] == "success", odd
        shown = await listed(broker, "events", user_id=f"user-{number}", **_NOVEMBER)
        assert "good" in {each["id"] for each in shown}, odd


@pytest.mark.parametrize(
    "series",
    [
        {
            "start": {"dateTime": "0001-01-02T03:00:00Z", "timeZone": "America/New_York"},
            "recurrence": ["RRULE:FREQ=YEARLY"],
        },
        {"end": {"dateTime": "9999-12-31T00:00:00Z"}, "recurrence": ["RRULE:FREQ=DAILY"]},
        {"recurrence": ["RDATE:99991231T235959Z"]},
        {"recurrence": ["RRULE:FREQ=SECONDLY"]},
    ],
)
async def test_a_series_at_the_end_of_time_is_read(
    broker: Broker, sandbox: Sandbox, upstreams: CalendarServer, series: dict[str, Any]
) -> None:
    upstreams.google.add_calendar(PRIMARY)
    await connect(broker, sandbox)
    items = [
        {"id": "odd", "status": "confirmed", **_HOUR, **series},
        {"id": "good", "status": "confirmed", **_HOUR},
    ]
    answer_with(upstreams, events=as_json({"items": items, "nextSyncToken": "t"}))
    assert (await auto(broker))["status"] == "success"
    assert "good" in {each["id"] for each in await listed(broker, "events", **_NOVEMBER)}


async def test_a_calendar_that_was_emptied_is_followed_however_large_it_was(
    broker: Broker, sandbox: Sandbox, upstreams: CalendarServer
) -> None:
    upstreams.google.add(upstreams.google.add_calendar(PRIMARY), event_id="e0")
    await connect(broker, sandbox)
    await sync(broker)
    gone = [{"id": f"e{number}", "status": "cancelled"} for number in range(40_000)]
    answer_with(upstreams, events=as_json({"items": gone, "nextSyncToken": "t"}))
    (calendar,) = (await auto(broker, min_interval=0))["calendars"]
    assert (calendar["status"], calendar["deleted"]) == ("success", 1)


async def test_a_redirect_is_no_deletion(broker: Broker, sandbox: Sandbox, upstreams: CalendarServer) -> None:
    event = upstreams.google.add(upstreams.google.add_calendar(PRIMARY))
    await connect(broker, sandbox)
    await sync(broker)
    as_ever = upstreams.google.answer

    def answer(method: str, *rest: Any) -> Answer:
        return (
            (302, {"Location": "https://elsewhere.example"}, b"")
            if method == "DELETE"
            else as_ever(method, *rest)
        )

    upstreams.google.answer = answer  # type: ignore[assignment, method-assign]
    deleted = await broker.http.delete(f"/calendar/events/{event}", params={"user_id": "ada"})
    assert (deleted.status_code, deleted.json()["code"]) == (503, "provider_unavailable")
    async with broker.services.db.begin() as tx:
        assert await tx.scalar(select(events.c.status)) == "confirmed"


async def test_what_is_erased_while_it_is_synced_fails_no_page(
    broker: Broker, sandbox: Sandbox, upstreams: CalendarServer
) -> None:
    upstreams.google.add(upstreams.google.add_calendar(PRIMARY))
    await connect(broker, sandbox)
    await sync(broker)

    async def erase(_method: str, path: str) -> None:
        if "/events" in path:
            upstreams.meanwhile = None
            await broker.http.delete("/grants/google/ada")
            async with broker.services.db.begin() as tx:
                await tx.execute(update(states).values(lease_owner=None, lease_until=None))
                assert await store.erase_revoked(tx, limit=10) == 1

    upstreams.meanwhile = erase
    assert (
        await broker.http.post("/calendar/sync/auto", json={"user_id": "ada", "min_interval": 0})
    ).status_code == 200


async def test_an_account_whose_calendar_is_being_synced_is_not_erased_yet(
    broker: Broker, sandbox: Sandbox, upstreams: CalendarServer
) -> None:
    upstreams.google.add_calendar(PRIMARY)
    await connect(broker, sandbox)
    await sync(broker)
    await broker.http.delete("/grants/google/ada")
    soon = func.clock_timestamp() + timedelta(minutes=1)
    async with broker.services.db.begin() as tx:
        await tx.execute(
            update(states).values(lease_owner=uuid7(broker.services.clock.now()), lease_until=soon)
        )
        assert await store.erase_revoked(tx, limit=10) == 0


async def test_a_page_does_not_wait_for_a_provider_that_hangs(
    broker: Broker, sandbox: Sandbox, upstreams: CalendarServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user, "_PATIENCE", timedelta(seconds=0.1))
    upstreams.google.add_calendar(PRIMARY)
    await connect(broker, sandbox)
    upstreams.google.fail_next(9, GoogleFault.SILENT)
    answer = await auto(broker)
    assert (answer["status"], answer["run_id"]) == ("partial", None)
    assert answer["message"] == "Your Google Calendar is being synced at this moment."


async def test_a_replica_that_leaves_gives_its_calendars_back(
    broker: Broker, sandbox: Sandbox, upstreams: CalendarServer
) -> None:
    upstreams.google.add_calendar(PRIMARY)
    await connect(broker, sandbox)
    await auto(broker)
    asked, left = asyncio.Event(), asyncio.Event()

    async def hang(_method: str, path: str) -> None:
        if "/events" in path:
            asked.set()
            await left.wait()

    upstreams.meanwhile = hang
    async with broker.services.db.begin() as tx:
        await tx.execute(update(states).values(next_attempt_at=func.clock_timestamp()))
    tick = asyncio.create_task(broker.run("sync_calendars"))
    await asked.wait()
    broker.services.drain.begin()
    await asyncio.wait_for(tick, timeout=10)
    async with broker.services.db.begin() as tx:
        assert await tx.scalar(select(states.c.lease_owner)) is None
    left.set()


async def test_another_account_of_the_user_takes_the_place_of_the_first(
    broker: Broker, sandbox: Sandbox, upstreams: CalendarServer
) -> None:
    google = upstreams.google
    google.add(google.add_calendar(PRIMARY))
    await connect(broker, sandbox)
    await auto(broker)
    google.remove_calendar(PRIMARY)
    google.add_calendar("other@example.com")
    await connect(broker, sandbox)
    assert (await auto(broker))["status"] == "success"
    assert [each["id"] for each in await listed(broker, "calendars")] == ["other@example.com"]
    assert await listed(broker, "events", **_NOVEMBER) == []


async def test_a_calendar_that_is_gone_has_the_list_read_again(
    broker: Broker, sandbox: Sandbox, upstreams: CalendarServer
) -> None:
    upstreams.google.add_calendar(PRIMARY)
    upstreams.google.add_calendar("going")
    await connect(broker, sandbox)
    await auto(broker)
    upstreams.google.remove_calendar("going")
    async with broker.services.db.begin() as tx:
        await tx.execute(update(states).values(next_attempt_at=func.clock_timestamp()))
    await broker.run("sync_calendars")
    await broker.run("list_calendars")
    assert [each["id"] for each in await listed(broker, "calendars")] == [PRIMARY]


async def test_a_list_that_was_asked_for_earlier_does_not_replace_a_later_one(
    broker: Broker, sandbox: Sandbox, upstreams: CalendarServer
) -> None:
    upstreams.google.add_calendar(PRIMARY)
    await connect(broker, sandbox)
    earlier = broker.services.clock.now()
    await sync(broker)
    async with broker.services.db.begin() as tx:
        lineage_id = (await tx.execute(select(accounts.c.lineage_id))).scalar_one()
        await store.put_listed(
            tx,
            (await tx.execute(select(accounts.c.grant_id))).scalar_one(),
            [(uuid7(earlier), RemoteCalendar("old", "old", None, "owner", False, None))],
            lineage_id=lineage_id,
            asked_at=earlier,
            next_list_at=earlier,
        )
        assert list(await tx.scalars(select(calendars.c.external_id))) == [PRIMARY]


async def test_somebodys_mistake_is_not_what_the_next_page_is_told(
    broker: Broker, sandbox: Sandbox, upstreams: CalendarServer
) -> None:
    upstreams.google.add_calendar(PRIMARY)
    await connect(broker, sandbox)
    await auto(broker)
    mistaken = await broker.http.post("/calendar/sync", json={"user_id": "ada", "calendar_ids": ["none"]})
    assert mistaken.status_code == 404
    assert (await auto(broker))["status"] == "success"


async def test_a_list_that_may_not_be_asked_for_says_when_it_may(
    broker: Broker, sandbox: Sandbox, upstreams: CalendarServer
) -> None:
    upstreams.google.add_calendar(PRIMARY)
    upstreams.google.retry_after = 120
    await connect(broker, sandbox)
    upstreams.google.fail_next(9, GoogleFault.TOO_MANY_REQUESTS)
    answer = await auto(broker)
    assert answer["next"] is not None and "Next try at" in answer["message"]
    told = await broker.http.post("/calendar/sync", json={"user_id": "ada"})
    assert told.status_code == 503 and 100 < int(told.headers["retry-after"]) < 140


async def test_a_cursor_of_somebodys_own_making_is_refused(
    broker: Broker, sandbox: Sandbox, upstreams: CalendarServer
) -> None:
    upstreams.google.add_calendar(PRIMARY)
    await connect(broker, sandbox)
    await sync(broker)
    for cursor in ("W1tbW1tb" * 400, "bnVsbA", "WzEsMiwzXQ"):
        answer = await broker.http.get(
            "/calendar/events", params={"user_id": "ada", **_NOVEMBER, "cursor": cursor}
        )
        assert answer.status_code == 422, answer.text
