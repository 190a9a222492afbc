"""/calendar/events: what is written through to both providers, and what becomes of it here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import func, select, update

from app.calendars import sync_store
from app.calendars.claimed import Claimed
from app.sandbox.server import Sandbox
from app.settings import Settings
from app.tables import audit_events, calendar_events, calendar_sync_states, calendars
from tests.broker import Broker
from tests.calendars import graph_errors
from tests.calendars.conftest import connect
from tests.calendars.google import GoogleCalendars
from tests.calendars.google_errors import GoogleFault
from tests.calendars.google_events import instance_id
from tests.calendars.graph import GraphCalendars
from tests.calendars.graph_errors import GraphFault
from tests.calendars.server import CalendarServer

only_google = pytest.mark.parametrize("world", ["google"], indirect=True)
only_outlook = pytest.mark.parametrize("world", ["microsoft"], indirect=True)
HOUR: dict[str, Any] = {
    "start": {"date_time": "2026-12-01T09:00:00+01:00", "time_zone": "Europe/Berlin"},
    "end": {"date_time": "2026-12-01T10:00:00+01:00", "time_zone": "Europe/Berlin"},
}
DAYS: dict[str, Any] = {"start": {"date": "2026-12-01"}, "end": {"date": "2026-12-03"}}
IDS = {"google": "ada@example.com", "microsoft": "AAMkADAw/calendar+1="}


@dataclass
class World:
    """One provider's calendar of one user, and the broker that leads to it."""

    broker: Broker
    provider: str
    upstreams: CalendarServer

    @property
    def calendar(self) -> str:
        return IDS[self.provider]

    @property
    def fake(self) -> GoogleCalendars | GraphCalendars:
        return self.upstreams.google if self.provider == "google" else self.upstreams.graph

    def fail(self, google: GoogleFault, graph: GraphFault) -> None:
        """The next request."""
        self.upstreams.google.fail_next(1, google)
        self.upstreams.graph.fail_next(1, graph)

    def change(self, event_id: str, title: str) -> None:
        """By somebody else."""
        if self.provider == "google":
            self.upstreams.google.change(self.calendar, event_id, summary=title)
        else:
            self.upstreams.graph.change(event_id, subject=title)

    def raw(self, event_id: str) -> dict[str, Any]:
        """As the provider has it."""
        if self.provider == "google":
            return self.upstreams.google.calendars[self.calendar].events[event_id]
        event = self.upstreams.graph.events[event_id]
        return {**event.fields, "start": event.start, "end": event.end}

    def living(self) -> set[str]:
        """What the provider has."""
        if self.provider == "google":
            calendar = self.upstreams.google.calendars[self.calendar]
            return {each for each in calendar.events if calendar.is_living(each)}
        return {each.event_id for each in self.upstreams.graph.events.values() if not each.is_deleted}

    async def create(self, **body: Any) -> httpx.Response:
        return await self.broker.http.post("/calendar/events", json={"user_id": "ada", **body})

    async def created(self, **body: Any) -> dict[str, Any]:
        answer = await self.create(**body)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    async def patch(self, event_id: str, etag: str | None = None, **body: Any) -> httpx.Response:
        headers = {} if etag is None else {"If-Match": etag}
        url = f"/calendar/events/{_quoted(event_id)}"
        return await self.broker.http.patch(url, json={"user_id": "ada", **body}, headers=headers)

    async def delete(self, event_id: str, etag: str | None = None) -> httpx.Response:
        headers = {} if etag is None else {"If-Match": etag}
        url = f"/calendar/events/{_quoted(event_id)}"
        return await self.broker.http.delete(url, params={"user_id": "ada"}, headers=headers)

    async def sync(self, **body: Any) -> None:
        answer = await self.broker.http.post("/calendar/sync", json={"user_id": "ada", **body})
        assert answer.json()["status"] == "success", answer.text

    async def stored(self) -> dict[str, tuple[str | None, datetime | None]]:
        """The etag and the start of all living events in the mirror."""
        columns = [calendar_events.c[name] for name in ("external_id", "etag", "start_at")]
        async with self.broker.services.db.begin() as tx:
            found = await tx.execute(select(*columns).where(calendar_events.c.status != "cancelled"))
            return {name: (etag, start) for name, etag, start in found}

    async def actions(self) -> list[tuple[str, str, Any]]:
        """What the audit trail tells of events."""
        columns = [audit_events.c[name] for name in ("action", "actor", "details")]
        async with self.broker.services.db.begin() as tx:
            query = select(*columns).where(audit_events.c.action.like("calendar.%"))
            found = await tx.execute(query.order_by(audit_events.c.id))
            return [(action, actor, details["event_id"]) for action, actor, details in found]


def _quoted(event_id: str) -> str:
    return event_id.replace("/", "%2F").replace("+", "%2B")


@pytest.fixture(params=["google", "microsoft"])
async def world(
    request: pytest.FixtureRequest, broker: Broker, sandbox: Sandbox, upstreams: CalendarServer
) -> AsyncIterator[World]:
    upstreams.google.add_calendar(IDS["google"])
    upstreams.graph.add_calendar(IDS["microsoft"])
    await connect(broker, sandbox, f"{request.param}/ada")
    yield World(broker, request.param, upstreams)
    upstreams.meanwhile = None


async def test_an_event_is_created_at_the_provider_and_answered_as_it_is_there(world: World) -> None:
    event = await world.created(
        title="Dentist", description="Bring the card", location="Baker Street", **HOUR, status="tentative"
    )
    assert world.living() == {event["id"]}
    assert {name: event[name] for name in ("provider", "account", "calendar_id", "title", "location")} == {
        "provider": world.provider,
        "account": "default",
        "calendar_id": "primary",  # nobody has synced it, so its id is not known
        "title": "Dentist",
        "location": "Baker Street",
    }
    assert (event["description"], event["status"], event["all_day"]) == ("Bring the card", "tentative", False)
    assert event["start"]["date_time"] == "2026-12-01T08:00:00Z" and event["end"]["date"] is None
    assert event["etag"] and event["updated_at"] and event["organizer"]["email"] == "alice@example.com"
    assert event["html_link"].startswith("https://")


async def test_an_all_day_event_has_dates_and_no_zone(world: World) -> None:
    event = await world.created(title="Away", **DAYS)
    assert event["all_day"] is True
    assert event["start"] == {"date": "2026-12-01", "date_time": None, "time_zone": None}
    assert event["end"]["date"] == "2026-12-03"


async def test_the_zone_reaches_the_provider(world: World) -> None:
    event = await world.created(title="Here", **HOUR)
    start = world.raw(event["id"])["start"]
    if world.provider == "google":
        assert start == {"dateTime": "2026-12-01T08:00:00Z", "timeZone": "Europe/Berlin"}
        assert event["start"]["time_zone"] == "Europe/Berlin"
    else:
        assert start == datetime(2026, 12, 1, 8, tzinfo=UTC)


async def test_who_reads_next_sees_what_was_written(world: World) -> None:
    await world.sync()
    event = await world.created(title="Dentist", **HOUR)
    assert event["calendar_id"] == world.calendar
    assert await world.stored() == {event["id"]: (event["etag"], datetime(2026, 12, 1, 8, tzinfo=UTC))}
    later: dict[str, Any] = {
        name: {"date_time": f"2026-12-02T{at}:00:00Z"} for name, at in (("start", "09"), ("end", "10"))
    }
    changed = (await world.patch(event["id"], **later)).json()
    assert await world.stored() == {event["id"]: (changed["etag"], datetime(2026, 12, 2, 9, tzinfo=UTC))}
    assert changed["etag"] != event["etag"]
    assert (await world.delete(event["id"])).status_code == 204
    assert await world.stored() == {} and world.living() == set()


async def test_nothing_is_stored_of_a_calendar_that_nobody_syncs(world: World) -> None:
    event = await world.created(title="Dentist", **HOUR)
    assert await world.stored() == {}
    await world.sync()
    assert set(await world.stored()) == {event["id"]}


async def test_the_same_id_twice_is_one_event(world: World) -> None:
    first = await world.created(id="visit-7", title="Dentist", **HOUR)
    again = await world.created(id="visit-7", title="Another title", **HOUR, calendar_id="primary")
    other = await world.created(id="visit-8", title="Dentist", **HOUR)
    assert again["id"] == first["id"] and again["title"] == "Dentist"
    assert world.living() == {first["id"], other["id"]}


async def test_without_an_id_each_call_creates_another_event(world: World) -> None:
    for _ in range(2):
        await world.created(title="Dentist", **HOUR)
    assert len(world.living()) == 2


async def test_two_brokers_with_one_id_at_once_create_one_event(world: World, settings: Settings) -> None:
    await world.sync()
    async with Broker.running(settings) as second:
        other = World(second, world.provider, world.upstreams)
        events = await asyncio.gather(
            *(each.created(id="visit-7", title="Dentist", **HOUR) for each in (world, other) * 5)
        )
    assert len({event["id"] for event in events}) == 1 == len(world.living())
    assert set(await world.stored()) == world.living()


async def test_an_answer_that_is_lost_leaves_one_event(world: World) -> None:
    world.fail(GoogleFault.ANSWER_LOST, GraphFault.ANSWER_LOST)
    event = await world.created(title="Dentist", **HOUR)
    assert world.living() == {event["id"]}


async def test_an_answer_that_is_unusable_is_made_good_by_asking_again_with_the_id(world: World) -> None:
    world.fail(GoogleFault.TRUNCATED, GraphFault.TRUNCATED)
    refused = await world.create(id="visit-7", title="Dentist", **HOUR)
    assert (refused.status_code, refused.json()["code"]) == (503, "provider_unavailable")
    event = await world.created(id="visit-7", title="Dentist", **HOUR)
    assert world.living() == {event["id"]}


@only_google
async def test_an_id_whose_event_was_deleted_is_a_conflict(world: World) -> None:
    event = await world.created(id="visit-7", title="Dentist", **HOUR)
    await world.delete(event["id"])
    answer = await world.create(id="visit-7", title="Dentist", **HOUR)
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert "deleted" in answer.json()["detail"]


async def test_a_change_leaves_what_it_does_not_name_and_takes_away_what_is_null(world: World) -> None:
    event = await world.created(title="Dentist", description="Bring the card", location="Here", **HOUR)
    answer = await world.patch(event["id"], title="Doctor", location=None)
    changed = answer.json()
    assert (changed["title"], changed["description"], changed["location"]) == (
        "Doctor", "Bring the card", None,
    )  # fmt: skip
    assert changed["start"] == event["start"] and answer.headers["etag"] == changed["etag"]


async def test_an_event_of_an_hour_becomes_one_of_days_and_back(world: World) -> None:
    event = await world.created(title="Away", **HOUR)
    assert (await world.patch(event["id"], **DAYS)).json()["all_day"] is True
    back = (await world.patch(event["id"], **HOUR)).json()
    assert (back["all_day"], back["start"]) == (False, event["start"])


async def test_a_change_with_a_stale_etag_is_a_conflict_and_changes_nothing(world: World) -> None:
    event = await world.created(title="Dentist", **HOUR)
    assert (await world.patch(event["id"], event["etag"], title="Doctor")).status_code == 200
    for refused in (
        await world.patch(event["id"], event["etag"], title="Surgeon"),
        await world.delete(event["id"], event["etag"]),
    ):
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
        assert refused.json()["detail"] == "The event was changed meanwhile; read it again."
    assert (await world.patch(event["id"], title="Surgeon")).json()["title"] == "Surgeon"


async def test_a_conditional_change_whose_answer_is_lost_is_not_taken_for_somebody_elses(
    world: World,
) -> None:
    event = await world.created(title="Dentist", **HOUR)
    world.fail(GoogleFault.ANSWER_LOST, GraphFault.ANSWER_LOST)
    answer = await world.patch(event["id"], event["etag"], title="Doctor")
    assert (answer.status_code, answer.json()["code"]) == (503, "provider_unavailable")
    world.fail(GoogleFault.ANSWER_LOST, GraphFault.ANSWER_LOST)
    assert (await world.patch(event["id"], title="Doctor")).status_code == 200


async def test_deleting_twice_succeeds_twice(world: World) -> None:
    await world.sync()
    event = await world.created(title="Dentist", **HOUR)
    world.fail(GoogleFault.ANSWER_LOST, GraphFault.ANSWER_LOST)
    assert [(await world.delete(event["id"])).status_code for _ in range(2)] == [204, 204]
    assert world.living() == set() and await world.stored() == {}


async def test_what_is_not_there_cannot_be_changed(world: World) -> None:
    answer = await world.patch("nosuchevent", title="Doctor")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    answer = await world.create(title="Dentist", calendar_id="nosuchcalendar", **HOUR)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_a_missing_permission_says_how_to_get_it(world: World) -> None:
    world.fail(GoogleFault.INSUFFICIENT_PERMISSIONS, GraphFault.ACCESS_DENIED)
    problem = (await world.create(title="Dentist", **HOUR)).json()
    assert (problem["status"], problem["code"], problem["error_type"]) == (
        409, "insufficient_scope", "permission_missing",
    )  # fmt: skip
    assert problem["action"]["kind"] == "reconnect" and "/connect/" in problem["action"]["url"]


async def test_a_dead_grant_says_how_to_connect_again(world: World, sandbox: Sandbox) -> None:
    await connect(world.broker, sandbox, f"{world.provider}/ada", expires_in=-1)
    sandbox.revoke("ada")
    problem = (await world.create(title="Dentist", **HOUR)).json()
    assert (problem["status"], problem["code"]) == (409, "reconnect_required")
    assert problem["action"]["kind"] == "reconnect"


async def test_a_token_that_has_expired_is_renewed_first(world: World, sandbox: Sandbox) -> None:
    await connect(world.broker, sandbox, f"{world.provider}/ada", expires_in=-1)
    assert (await world.created(title="Dentist", **HOUR))["title"] == "Dentist"


async def test_a_provider_that_is_asked_too_often_says_when_to_come_again(world: World) -> None:
    world.fake.retry_after = 600
    world.fail(GoogleFault.TOO_MANY_REQUESTS, GraphFault.TOO_MANY_REQUESTS)
    answer = await world.create(title="Dentist", **HOUR)
    assert (answer.status_code, answer.json()["code"]) == (503, "provider_unavailable")
    assert answer.headers["retry-after"] == "600"


async def test_what_the_provider_does_not_accept_is_told_in_our_words(world: World) -> None:
    if world.provider == "google":  # a start that is a date, with an end that is an hour
        event = await world.created(title="Dentist", **HOUR)
        answer = await world.patch(event["id"], start={"date": "2026-12-01"})
    else:  # the fake has series with a count only
        answer = await world.create(title="Standup", **HOUR, recurrence=["RRULE:FREQ=DAILY"])
    problem = answer.json()
    assert (problem["status"], problem["code"]) == (422, "validation_failed")
    assert "fake" not in answer.text and "both" not in answer.text


async def test_whatever_fails_once_has_a_known_code_and_asking_again_leaves_one_event(world: World) -> None:
    faults: list[Any] = [*GoogleFault] if world.provider == "google" else [*GraphFault]
    known = {
        *("reconnect_required", "insufficient_scope", "not_found", "provider_unavailable"),
        *("provider_rejected_client", "provider_error"),
    }
    world.fake.retry_after = 600
    for number, fault in enumerate(faults):
        if fault in (GoogleFault.SILENT, GraphFault.SILENT):  # takes its ten seconds
            continue
        world.fake.fail_next(1, fault)
        answer = await world.create(id=f"visit-{number}", title="Dentist", **HOUR)
        assert answer.status_code == 201 or answer.json()["code"] in known, (fault, answer.text)
        world.fake.recover()
        event = await world.created(id=f"visit-{number}", title="Dentist", **HOUR)
        assert len(world.living()) == 1, fault
        assert (await world.delete(event["id"])).status_code == 204


@only_outlook
async def test_a_collision_at_the_provider_is_a_conflict(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    collision = graph_errors.error(409, "ErrorConcurrentItemSave", "Another save is under way.")
    monkeypatch.setattr(world.fake, "answer", lambda *_: collision)
    answer = await world.create(title="Dentist", **HOUR)
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


async def test_each_write_is_on_record_under_the_consumers_name(world: World) -> None:
    event = await world.created(title="Dentist", **HOUR)
    await world.patch(event["id"], title="Doctor")
    await world.delete(event["id"])
    assert await world.actions() == [
        ("calendar.event_created", "admin", event["id"]),
        ("calendar.event_changed", "admin", event["id"]),
        ("calendar.event_deleted", "admin", event["id"]),
    ]


async def test_a_baseline_under_way_neither_loses_what_is_written_nor_brings_back_what_is_deleted(
    world: World,
) -> None:
    doomed = await world.created(title="Doomed", **HOUR)
    await world.sync()
    written: list[dict[str, Any]] = []

    async def meanwhile(method: str, path: str) -> None:
        if method != "GET" or written or not path.endswith(("/events", "/delta")):
            return
        written.append({})  # what follows comes here too
        written[0] = await world.created(title="Written", **HOUR)
        assert (await world.delete(doomed["id"])).status_code == 204

    world.upstreams.meanwhile = meanwhile
    await world.sync(full=True)
    assert set(await world.stored()) == {written[0]["id"]} == world.living()
    await world.sync()
    assert set(await world.stored()) == {written[0]["id"]}
    await world.sync(full=True)
    async with world.broker.services.db.begin() as tx:
        names = set(await tx.scalars(select(calendar_events.c.external_id)))
    assert names == {written[0]["id"]}  # nothing is left of what was deleted


async def test_a_later_version_is_not_written_over(world: World) -> None:
    event = await world.created(title="Dentist", **HOUR)
    await world.sync()

    async def meanwhile(method: str, _path: str) -> None:
        if method == "PATCH":
            world.upstreams.meanwhile = None
            world.change(event["id"], "Theirs")
            await world.sync()

    world.upstreams.meanwhile = meanwhile
    ours = (await world.patch(event["id"], title="Ours")).json()
    [(etag, _)] = (await world.stored()).values()
    assert ours["title"] == "Ours" and etag != ours["etag"]


@only_google
async def test_a_series_of_google_is_changed_and_cancelled_by_its_instances_ids(world: World) -> None:
    await world.sync()
    series = await world.created(title="Standup", **HOUR, recurrence=["RRULE:FREQ=DAILY;COUNT=5"])
    assert series["recurrence"] == ["RRULE:FREQ=DAILY;COUNT=5"]
    second, third = (instance_id(series["id"], datetime(2026, 12, day, 8, tzinfo=UTC)) for day in (2, 3))
    moved = (await world.patch(second, title="Long standup")).json()
    assert (moved["recurring_event_id"], moved["original_start"]) == (series["id"], "2026-12-02T08:00:00Z")
    assert (await world.delete(third)).status_code == 204
    async with world.broker.services.db.begin() as tx:
        columns = [
            calendar_events.c[name] for name in ("external_id", "status", "master_id", "original_start")
        ]
        found = {row.external_id: tuple(row)[1:] for row in await tx.execute(select(*columns))}
    assert found == {
        series["id"]: ("confirmed", None, None),
        second: ("confirmed", series["id"], "2026-12-02T08:00:00Z"),
        third: ("cancelled", series["id"], "2026-12-03T08:00:00Z"),
    }
    await world.sync()
    assert set(await world.stored()) == world.living()
    assert (await world.delete(series["id"])).status_code == 204
    assert await world.stored() == {}


@only_outlook
async def test_a_series_of_outlook_is_stored_and_its_instances_are_asked_for(world: World) -> None:
    answer = await world.broker.http.post("/calendar/sync/auto", json={"user_id": "ada"})
    assert answer.json()["status"] == "success"
    series = await world.created(title="Standup", **HOUR, recurrence=["RRULE:FREQ=DAILY;COUNT=5"])
    assert set(await world.stored()) == {series["id"]}
    due = update(calendar_sync_states).values(next_attempt_at=func.now())
    async with world.broker.services.db.begin() as tx:  # it is in a few seconds that they are asked for
        soon = await tx.scalar(due.returning(calendar_sync_states.c.notified_at))
        assert soon is not None
    await world.broker.run("sync_calendars")
    assert set(await world.stored()) == world.living() and len(world.living()) == 6
    assert (await world.delete(series["id"])).status_code == 204
    assert await world.stored() == {}
    await world.sync()
    assert await world.stored() == {}


async def test_a_foreign_account_is_as_an_absent_one(world: World) -> None:
    event = await world.created(title="Dentist", **HOUR)
    key = await world.broker.services.keys.create_key(
        consumer="narrow", scopes=["calendar"], actor="test", change_rights=True, users=["bob"]
    )
    calls = (world.create(**HOUR), world.patch(event["id"], title="x"), world.delete(event["id"]))
    world.broker.http.headers["Authorization"] = f"Bearer {key}"
    foreign = [await call for call in calls]
    assert {(answer.status_code, answer.json()["code"]) for answer in foreign} == {(404, "grant_not_found")}
    assert world.living() == {event["id"]} and world.raw(event["id"]).get("etag") == (
        event["etag"] if world.provider == "google" else None
    )


async def test_of_several_accounts_the_one_that_is_meant_has_to_be_named(
    world: World, sandbox: Sandbox
) -> None:
    tokens = sandbox.grant("ada")
    other = {"access_token": tokens["access_token"], "expires_in": 300, "account": "work"}
    await world.broker.put(f"{world.provider}/ada", other)
    refused = (await world.create(**HOUR)).json()
    assert (refused["status"], refused["errors"]) == (
        422,
        [{"field": "body.account", "message": "must be one of: default, work"}],
    )
    assert (await world.created(**HOUR, account="work"))["account"] == "work"
    elsewhere = "microsoft" if world.provider == "google" else "google"
    await connect(world.broker, sandbox, f"{elsewhere}/ada")
    answer = await world.delete("e1")
    assert answer.json()["errors"] == [
        {"field": "query.provider", "message": "must be one of: google, microsoft"}
    ]


async def test_a_calendar_may_be_named_by_the_providers_id(world: World) -> None:
    await world.sync()
    event = await world.created(title="Dentist", calendar_id=world.calendar, **HOUR)
    assert event["calendar_id"] == world.calendar
    assert set(await world.stored()) == {event["id"]}
    answer = await world.patch(event["id"], calendar_id=world.calendar, title="Doctor")
    assert answer.json()["title"] == "Doctor"


@pytest.mark.parametrize("name", [".", ".."])
async def test_no_id_leads_to_another_address(world: World, name: str) -> None:
    before = world.fake.requests.total()
    answers = [
        await world.create(calendar_id=name, **HOUR),
        await world.patch("e1", calendar_id=name, title="x"),
        await world.patch(name.replace(".", "%2E"), title="x"),
        await world.delete(name.replace(".", "%2E")),
    ]
    assert {answer.status_code for answer in answers} == {422}
    assert world.fake.requests.total() == before


async def test_each_field_that_is_wrong_is_named_before_anybody_is_asked(world: World) -> None:
    answer = await world.create(start=HOUR["start"], end={"date": "2026-12-01"}, attendees=["bob"])
    assert {each["field"] for each in answer.json()["errors"]} == {"body.end", "body.attendees.0"}
    answer = await world.patch("e1")
    assert [each["field"] for each in answer.json()["errors"]] == ["body"]
    answer = await world.patch("e1", "no etag", title="x")
    assert [each["field"] for each in answer.json()["errors"]] == ["header.if-match"]
    assert world.fake.requests.total() == 0


@only_outlook
async def test_what_lies_outside_of_what_syncs_list_is_not_stored(world: World) -> None:
    await world.sync()
    event = await world.created(title="Dentist", **HOUR)
    later: dict[str, Any] = {
        name: {"date_time": f"2036-12-01T{at}:00:00Z"} for name, at in (("start", "09"), ("end", "10"))
    }
    answer = await world.patch(event["id"], **{**later, "title": "Far off"})
    assert answer.status_code == 200 and await world.stored() == {}
    await world.sync(full=True)
    assert await world.stored() == {}


async def test_no_baseline_begins_while_an_event_is_being_stored(world: World) -> None:
    await world.sync()
    db, ttl = world.broker.services.db, timedelta(seconds=60)

    async def begin(claimed: Claimed) -> int:
        async with db.begin() as tx:
            return await sync_store.begin_baseline(tx, claimed, ttl=ttl)

    async with db.begin() as tx:
        [row] = await tx.execute(select(calendars.c.id, calendars.c.grant_id))
        [claimed] = await sync_store.claim(tx, [row.id], owner=uuid4(), ttl=ttl)
    async with db.begin() as tx:
        mirrored = await sync_store.mirrored(tx, row.grant_id, "primary")
        beginning = asyncio.create_task(begin(claimed))
        await asyncio.sleep(0.3)
        assert mirrored is not None and not beginning.done()
    assert await beginning == mirrored.generation + 1
