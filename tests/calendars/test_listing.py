"""GET /calendar/...: what is seen of calendars once they have been synced."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from app.sandbox.server import Sandbox
from tests.broker import Broker
from tests.calendars.conftest import connect
from tests.calendars.server import CalendarServer
from tests.calendars.test_sync import auto, sync

PRIMARY = "ada@example.com"
_BERLIN = ZoneInfo("Europe/Berlin")
_DECEMBER = {"from": "2026-12-01T00:00:00Z", "to": "2027-01-01T00:00:00Z"}


async def listed(broker: Broker, what: str, **query: Any) -> list[dict[str, Any]]:
    """Every page."""
    items, cursor = [], None
    while True:
        params = {"user_id": "ada", **query, **({"cursor": cursor} if cursor else {})}
        answer = await broker.http.get(f"/calendar/{what}", params=params)
        assert answer.status_code == 200, answer.text
        items += answer.json()["items"]
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            return items


@pytest.fixture
async def synced(broker: Broker, sandbox: Sandbox, upstreams: CalendarServer) -> CalendarServer:
    """A Google and an Outlook account of one user, each with a weekly series, of which one instance was moved and one
    cancelled, and a day off."""
    google, graph = upstreams.google, upstreams.graph
    google.add_calendar(PRIMARY)
    start = datetime(2026, 12, 1, 9, tzinfo=_BERLIN)
    series = google.add_series(PRIMARY, start=start, rule="RRULE:FREQ=WEEKLY;COUNT=4", summary="Weekly")
    google.move_instance(PRIMARY, series, start + timedelta(weeks=1), start + timedelta(weeks=1, hours=5))
    google.cancel_instance(PRIMARY, series, start + timedelta(weeks=2))
    google.add(PRIMARY, start=date(2026, 12, 24), summary="Day off")
    graph.add_calendar("AAMk=")
    master = graph.add_series("AAMk=", start=datetime(2026, 12, 2, 8, tzinfo=UTC), count=4)
    graph.move_occurrence(master, 1, datetime(2026, 12, 10, 8, tzinfo=UTC))
    graph.cancel_occurrence(master, 2)
    for provider in ("google", "microsoft"):
        await connect(broker, sandbox, f"{provider}/ada")
    assert (await sync(broker))["status"] == "success"
    return upstreams


async def test_events_are_listed_as_they_take_place(broker: Broker, synced: CalendarServer) -> None:
    items = await listed(broker, "events", **_DECEMBER)
    assert [(each["provider"], each["start"]["date_time"] or each["start"]["date"]) for each in items] == [
        ("google", "2026-12-01T08:00:00Z"),
        ("microsoft", "2026-12-02T08:00:00Z"),
        ("google", "2026-12-08T13:00:00Z"),
        ("microsoft", "2026-12-10T08:00:00Z"),
        ("google", "2026-12-22T08:00:00Z"),
        ("microsoft", "2026-12-23T08:00:00Z"),
        ("google", "2026-12-24"),
    ]
    weekly = items[0]
    assert (weekly["title"], weekly["start"]["time_zone"], weekly["all_day"]) == (
        "Weekly",
        "Europe/Berlin",
        False,
    )
    assert items[2]["recurring_event_id"] == weekly["recurring_event_id"]
    assert (items[-1]["title"], items[-1]["end"]["date"], items[-1]["all_day"]) == (
        "Day off",
        "2026-12-25",
        True,
    )
    assert items[1]["title"] == "A series"  # which its master says


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_pages_of_events_come_to_the_same(broker: Broker, synced: CalendarServer, limit: int) -> None:
    assert await listed(broker, "events", **_DECEMBER, limit=limit) == await listed(
        broker, "events", **_DECEMBER
    )


async def test_one_calendar_alone_is_listed_by_its_id_or_as_primary(
    broker: Broker, synced: CalendarServer
) -> None:
    by_id = await listed(broker, "events", **_DECEMBER, calendar_id=PRIMARY)
    assert {each["calendar_id"] for each in by_id} == {PRIMARY}
    assert await listed(broker, "events", **_DECEMBER, calendar_id="primary", provider="google") == by_id
    unknown = await broker.http.get(
        "/calendar/events", params={"user_id": "ada", **_DECEMBER, "calendar_id": "none"}
    )
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"to": "2028-12-01T00:00:00Z"}, "query.to"),
        ({"to": "2026-11-01T00:00:00Z"}, "query.to"),
        ({"from": "yesterday"}, "query.from"),
        ({"cursor": "e30"}, "query.cursor"),
        ({"cursor": "////"}, "query.cursor"),
    ],
)
async def test_what_cannot_be_listed_is_named_by_its_field(
    broker: Broker, synced: CalendarServer, wrong: dict[str, str], field: str
) -> None:
    refused = await broker.http.get("/calendar/events", params={"user_id": "ada", **_DECEMBER, **wrong})
    assert refused.status_code == 422
    assert [each["field"] for each in refused.json()["errors"]] == [field]


async def test_calendars_and_runs_tell_how_syncs_went(
    broker: Broker, sandbox: Sandbox, synced: CalendarServer
) -> None:
    await auto(broker, provider="google", min_interval=0)
    calendars = {each["provider"]: each for each in await listed(broker, "calendars")}
    assert (calendars["google"]["id"], calendars["google"]["primary"]) == (PRIMARY, True)
    assert calendars["google"]["last_synced_at"] is not None and calendars["google"]["error_type"] is None
    sandbox.revoke("ada")
    await auto(broker, provider="google", min_interval=0)
    runs = await listed(broker, "runs", limit=1)
    assert [(each["provider"], each["trigger"], each["status"]) for each in runs][:2] == [
        ("google", "auto", "token_unavailable"),
        ("google", "auto", "success"),
    ]
    assert {(each["trigger"], each["status"]) for each in runs[2:]} == {("request", "success")}


async def test_of_another_users_calendars_nothing_is_seen(broker: Broker, synced: CalendarServer) -> None:
    made = await broker.http.post(
        "/consumers", json={"name": "theirs", "scopes": ["calendar"], "users": ["bob"]}
    )
    key = (await broker.http.post(f"/consumers/{made.json()['id']}/keys", json={})).json()["key"]
    headers = {"Authorization": f"Bearer {key}"}
    for what, query in (("calendars", {}), ("runs", {}), ("events", _DECEMBER)):
        answer = await broker.http.get(
            f"/calendar/{what}", params={"user_id": "ada", **query}, headers=headers
        )
        assert (answer.status_code, answer.json()["items"]) == (200, [])
